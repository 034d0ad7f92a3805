//! Calls with random numbers and arguments, the same in every run. (Row 28 of the list of attacks.)

use alloc::vec::Vec;
use portico_sdk::abi::call::SVE_HINT;
use portico_sdk::abi::handle::SELF_DOMAIN;
use portico_sdk::abi::{Call, Status};
use portico_sdk::{hvc, time};
use test_kit::{Random, Tap};

/// Handles that fuzzing must not lose: those that there were before it.
fn kept() -> Vec<u64> {
    let mut kept = Vec::new();
    let mut cursor = 0;
    while let Ok((handle, next)) = hvc::handle_next(SELF_DOMAIN, cursor) {
        kept.push(u64::from(handle.raw()));
        cursor = next;
    }
    kept
}

/// Makes `rounds` calls.
pub fn run(tap: &mut Tap, seed: u64, rounds: u64) {
    let mut random = Random::new(seed);
    let kept = kept();
    // Handles that calls gave, some of them stale.
    let mut handles = [0_u64; 64];
    let mut wrong = None;
    let mut succeeded = 0_u64;
    for round in 0..rounds {
        let row = random.pick(Call::TABLE, Call::TABLE[0]);
        // Endings and floods of the log are tests of their own.
        if matches!(row.call, Call::SelfExit | Call::EarlyWrite) {
            continue;
        }
        let mut arguments: [u64; 6] = core::array::from_fn(|_| argument(&mut random, &handles));
        for argument in &mut arguments {
            if kept.contains(&(*argument & 0xffff_ffff)) {
                *argument = 0;
            }
        }
        match row.call {
            // A wait must end, and an ending is a test of its own.
            Call::VcpuBlock => arguments[0] = time::now() + random.below(1000),
            Call::PortNotifyWait => arguments[1] = time::now() + random.below(1000),
            _ => {}
        }
        let function = u64::from(row.call.function_id()) | (random.next() & u64::from(SVE_HINT)) | random.next() << 32;
        let [status, results @ ..] = hvc::raw(function, arguments);
        match Status::from_raw(status.cast_signed()) {
            None => wrong = wrong.or(Some((round, row.number, status))),
            Some(Status::Ok) => {
                succeeded += 1;
                if matches!(row.call, Call::PortPairCreate | Call::HandleCopy) {
                    for (slot, handle) in [(0, results[0]), (1, results[1])] {
                        let at = (random.below(32) * 2 + slot) as usize;
                        if let Some(place) = handles.get_mut(at)
                            && handle != 0
                        {
                            let _ = hvc::handle_close(portico_sdk::Handle::from_raw(*place as u32));
                            *place = handle;
                        }
                    }
                }
            }
            Some(_) => {}
        }
    }
    tap.none("every answer is a status of the ABI", wrong);
    tap.holds("some calls succeed", succeeded > rounds / 1000);
    tap.is("what there was before is there still", kept.iter().filter(|handle| is_live(**handle)).count(), kept.len());
}

fn is_live(handle: u64) -> bool {
    hvc::handle_info(portico_sdk::Handle::from_raw(handle as u32)).is_ok()
}

fn argument(random: &mut Random, handles: &[u64]) -> u64 {
    match random.below(12) {
        0 => 0,
        1 => u64::MAX,
        2 => random.next(),
        3 => random.below(16),
        4 => random.below(2048),
        5 => 1 << random.below(64),
        6 => (1_u64 << random.below(64)).wrapping_sub(1),
        7 => u64::from(SELF_DOMAIN.raw()),
        8 => random.below(64) | random.below(8) << 16,
        9 => 0x4000_0000 + (random.below(4096) << 12),
        _ => random.pick(handles, 0),
    }
}
