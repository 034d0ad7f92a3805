//! Numbers and arguments of calls. (Rows 27, 29 and 32 of the list of attacks.)

use portico_sdk::abi::call::{FUNCTION_BASE, SVE_HINT};
use portico_sdk::abi::{Call, Status, psci};
use portico_sdk::hvc;
use test_kit::{Random, Tap};

const NOT_SUPPORTED: u64 = -1_i64 as u64;

/// Standard services that end the domain, turn the vCPU off or block it: left to tests of their own.
const ENDING: [u32; 6] = [
    psci::CPU_OFF,
    psci::CPU_SUSPEND_32,
    psci::CPU_SUSPEND_64,
    psci::SYSTEM_OFF,
    psci::SYSTEM_RESET,
    psci::SYSTEM_RESET2_64,
];

/// Ids that answer something.
fn is_known(id: u32) -> bool {
    let standard = [
        psci::PSCI_VERSION,
        psci::CPU_ON_32,
        psci::CPU_ON_64,
        psci::AFFINITY_INFO_32,
        psci::AFFINITY_INFO_64,
        psci::MIGRATE_INFO_TYPE,
        psci::PSCI_FEATURES,
        psci::SMCCC_VERSION,
        psci::SMCCC_ARCH_FEATURES,
        psci::ARCH_WORKAROUND_1,
        psci::ARCH_WORKAROUND_2,
        psci::ARCH_WORKAROUND_3,
        psci::PV_TIME_FEATURES,
        psci::PV_TIME_ST,
        psci::TRNG_VERSION,
        psci::TRNG_FEATURES,
        psci::TRNG_GET_UUID,
        psci::TRNG_RND_32,
        psci::TRNG_RND_64,
        psci::VENDOR_UID,
        psci::VENDOR_REVISION,
    ];
    standard.contains(&id) || ENDING.contains(&id) || Call::from_function_id(id).is_some()
}

pub fn attempts(tap: &mut Tap) {
    tap.none("every unknown call number is NotSupported and changes nothing", unknown_numbers());
    tap.none("random function ids are NotSupported", random_ids());
    tap.none("ids of the standard services that are not offered are NotSupported", standard_ranges());
    tap.none("calls for others' objects are refused without a handle", without_handles());
    tap.none("reserved bits of arguments are Invalid", reserved_bits());
    tap.none("an error leaves nothing in the result registers", errors_are_clean());
    tap.none("the upper half of the function id is ignored", upper_half());
    tap.none("facts: wild keys and indices", wild_facts());
}

/// Makes a call with patterns in all arguments; complains if x0 is not -1.
fn refused(function: u64) -> Option<(u64, u64)> {
    let got = hvc::raw(function, [0x1111, 0x2222, 0x3333, 0x4444, 0x5555, 0x6666]);
    (got[0] != NOT_SUPPORTED).then_some((function, got[0]))
}

fn unknown_numbers() -> Option<(u64, u64)> {
    (0..=0xffff_u32).filter(|&number| Call::from_number(number).is_none()).find_map(|number| {
        refused(u64::from(FUNCTION_BASE | number)).or_else(|| refused(u64::from(FUNCTION_BASE | SVE_HINT | number)))
    })
}

fn random_ids() -> Option<(u64, u64)> {
    let mut random = Random::new(27);
    (0..50_000).find_map(|_| {
        let id = random.next() as u32;
        if is_known(id & !SVE_HINT) || is_known(id) { None } else { refused(u64::from(id)) }
    })
}

fn standard_ranges() -> Option<(u64, u64)> {
    let owners = [
        0x8000_0000_u32,
        0xc000_0000,
        0x8400_0000,
        0xc400_0000,
        0x8500_0000,
        0xc500_0000,
        0x8600_0000,
        0x0400_0000,
        0x4400_0000,
    ];
    owners.iter().find_map(|owner| {
        (0..0x400_u32)
            .chain(0xff00..0x1_0000)
            .filter(|n| !is_known(owner | n))
            .find_map(|n| refused(u64::from(owner | n)))
    })
}

/// Every call with zeros, and with handles that were never given out: none may succeed.
fn without_handles() -> Option<(u32, u64)> {
    for row in Call::TABLE {
        let harmless = matches!(
            row.call,
            Call::AbiFeatures | Call::SelfInfo | Call::EarlyWrite | Call::SelfExit | Call::VcpuBlock | Call::VcpuYield
        );
        if harmless {
            continue;
        }
        for handle in [0, 0x7777, 0x0001_7777, 0xffff_0000, 0xffff_fffe] {
            // The second argument is a handle too, or a deadline in the past.
            let [status, ..] = hvc::raw(u64::from(row.call.function_id()), [handle, 0, 0, 0, 0, 0]);
            let fine = match row.call {
                // Needs no handle of the caller's but the machine's, which it has not.
                Call::DomainCreate => {
                    status.cast_signed() == Status::NoRights.raw() || status.cast_signed() == Status::BadHandle.raw()
                }
                Call::ExtentSeal | Call::DomainClone | Call::DirtyLog | Call::DomainTime => status == NOT_SUPPORTED,
                // An `extent` of 0 asks for the second handle.
                _ => status.cast_signed() < 0,
            };
            if !fine {
                return Some((row.number, status));
            }
        }
    }
    None
}

fn reserved_bits() -> Option<(&'static str, u64)> {
    let self_domain = 0xffff_ffff;
    let pair = hvc::raw(u64::from(Call::PortPairCreate.function_id()), [self_domain, self_domain, 0, 0, 0, 0]);
    if pair[0] != 0 {
        return Some(("a port pair", pair[0]));
    }
    let (port, peer) = (pair[1], pair[2]);
    let invalid = Status::Invalid.raw() as u64;
    let is_invalid = |what, call: Call, arguments| {
        let got = hvc::raw(u64::from(call.function_id()), arguments);
        (got[0] != invalid).then_some((what, got[0]))
    };
    let result = is_invalid("class 1", Call::PortBind, [port, 0, 100, 1, 0, 0])
        .or_else(|| is_invalid("class 2^63", Call::PortBind, [port, 0, 100, 1 << 63, 0, 0]))
        .or_else(|| is_invalid("rights above bit 15", Call::HandleCopy, [port, self_domain, 1 << 16, 0, 0, 0]))
        .or_else(|| is_invalid("rights at bit 63", Call::HandleCopy, [port, self_domain, 1 << 63, 0, 0, 0]))
        .or_else(|| is_invalid("no bytes", Call::EarlyWrite, [0; 6]))
        .or_else(|| is_invalid("41 bytes", Call::EarlyWrite, [41, 0, 0, 0, 0, 0]))
        .or_else(|| is_invalid("2^32 bytes", Call::EarlyWrite, [1 << 32, 0, 0, 0, 0, 0]))
        .or_else(|| is_invalid("kind 3", Call::SelfExit, [3, 0, 0, 0, 0, 0]))
        .or_else(|| is_invalid("kind 2^63", Call::SelfExit, [1 << 63, 0, 0, 0, 0, 0]));
    for handle in [port, peer] {
        let _ = hvc::raw(u64::from(Call::HandleClose.function_id()), [handle, 0, 0, 0, 0, 0]);
    }
    result
}

/// Nothing of EL2's may be left in x1 to x3, and nothing else may change.
fn errors_are_clean() -> Option<(u32, [u64; 4])> {
    let arguments = [0x7777, 0xaaaa_aaaa_aaaa, 0xbbbb_bbbb_bbbb, 0xcccc, 0xdddd, 0xeeee];
    Call::TABLE.iter().find_map(|row| {
        if matches!(row.call, Call::AbiFeatures | Call::VcpuBlock | Call::VcpuYield | Call::SelfExit | Call::EarlyWrite)
        {
            return None;
        }
        let got = hvc::raw(u64::from(row.call.function_id()), arguments);
        let clean = got[0].cast_signed() < 0 && (1..4).all(|n| got[n] == 0 || got[n] == arguments[n - 1]);
        (!clean).then_some((row.number, got))
    })
}

fn upper_half() -> Option<[u64; 4]> {
    let plain = hvc::raw(u64::from(Call::AbiFeatures.function_id()), [0; 6]);
    let dirty = hvc::raw(u64::from(Call::AbiFeatures.function_id()) | 0xdead_beef << 32, [0; 6]);
    (plain != dirty || plain[0] != 0).then_some(dirty)
}

fn wild_facts() -> Option<(u64, u64)> {
    let mut random = Random::new(7);
    for key in (0..64).chain([u64::MAX, 1 << 32, 1 << 63]) {
        for index in [0, 1, 2, 47, 48, 255, 256, 1 << 31, 1 << 32, u64::MAX, random.next()] {
            if let Err(status) = hvc::self_info(key, index)
                && status != Status::NotFound
            {
                return Some((key, index));
            }
        }
    }
    None
}
