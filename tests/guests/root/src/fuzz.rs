//! Random calls with every right there is. (Rows 14, 22, 28 and 43 of the list of attacks.)

use alloc::vec::Vec;
use portico_sdk::abi::call::{Bound, CallInfo, SVE_HINT, attrs, extent_flags};
use portico_sdk::abi::handle::SELF_DOMAIN;
use portico_sdk::abi::{BLOCK_SIZE, Call, Handle, ObjectType, PAGE_SIZE, Status, dt};
use portico_sdk::{hvc, println, time};
use test_kit::{Random, Tap};

use crate::books::{Books, each_handle};
use crate::child;

/// Handles of one kind that calls choose from.
const POOL: usize = 48;

/// What the fuzzer has made and not yet lost.
struct World {
    system: u64,
    /// Handles that must stay: the memory and pages this guest itself lives in.
    kept: Vec<u64>,
    any: [u64; POOL],
    domains: [u64; 8],
    extents: [u64; 24],
    vcpus: [u64; 8],
}

/// Makes `calls` calls.
pub fn run(tap: &mut Tap, books: &mut Books, seed: u64, calls: u64) {
    let mut random = Random::new(seed);
    let mut world = World {
        system: u64::from(books.system.raw()),
        kept: kept(),
        any: [0; POOL],
        domains: [0; 8],
        extents: [0; 24],
        vcpus: [0; 8],
    };
    // Small pieces to play with; the large rest is not for cutting up.
    world.kept.push(u64::from(books.memory.raw()));
    for place in 0..world.extents.len() {
        let pages = if place % 6 == 0 { BLOCK_SIZE / PAGE_SIZE } else { 1 + random.below(40) };
        if let (Ok(extent), Some(slot)) = (books.take(pages), world.extents.get_mut(place)) {
            *slot = u64::from(extent.raw());
        }
    }
    let mut wrong = None;
    let mut counts = [0_u64; 2];
    let mut longest = Longest::new();
    for call in 0..calls {
        let row = random.pick(Call::TABLE, Call::TABLE[0]);
        if matches!(row.call, Call::SelfExit | Call::EarlyWrite) {
            continue;
        }
        let mut arguments = arguments(&mut random, &world, row.call);
        for argument in &mut arguments {
            if world.kept.contains(&(*argument & 0xffff_ffff)) {
                *argument = 0;
            }
        }
        match row.call {
            Call::VcpuBlock => arguments[0] = time::now() + random.below(500),
            Call::PortNotifyWait => arguments[1] = time::now() + random.below(500),
            Call::SystemOff if arguments[1] < 2 => arguments[1] = 2,
            // The pool must not take all the memory, nor lose a block that holds objects: it cannot, but it must not run dry.
            Call::ExtentScrub if random.below(8) != 0 => continue,
            _ => {}
        }
        let function = u64::from(row.call.function_id()) | random.next() & u64::from(SVE_HINT);
        let before = time::now();
        let [status, results @ ..] = hvc::raw(function, arguments);
        if !matches!(row.bound, Bound::Blocks) {
            longest.note(&row, time::now().saturating_sub(before));
        }
        match Status::from_raw(status.cast_signed()) {
            None => wrong = wrong.or(Some((call, row.number, status))),
            Some(Status::Ok | Status::Again) => {
                counts[0] += 1;
                remember(&mut random, &mut world, row.call, results);
            }
            Some(_) => counts[1] += 1,
        }
    }
    longest.print();
    println!("# {} calls succeeded, {} were refused", counts[0], counts[1]);
    tap.none("every answer is a status of the ABI", wrong);
    tap.holds("many calls succeed", counts[0] > calls / 50);
    tap.none("all domains can be destroyed", end(&world));
}

/// How long each call took at most, as its caller sees it.
struct Longest {
    ticks: Vec<(&'static str, u64)>,
}

impl Longest {
    fn new() -> Self {
        Self { ticks: Call::TABLE.iter().map(|row| (row.name, 0)).collect() }
    }

    fn note(&mut self, row: &CallInfo, ticks: u64) {
        if let Some((_, longest)) = self.ticks.iter_mut().find(|(name, _)| *name == row.name) {
            *longest = ticks.max(*longest);
        }
    }

    /// The longest first: they mean something if instructions are counted, and nothing else runs.
    fn print(mut self) {
        self.ticks.sort_unstable_by_key(|(_, ticks)| core::cmp::Reverse(*ticks));
        for (name, ticks) in self.ticks {
            println!("# longest {name}: {ticks} ticks");
        }
    }
}

/// Handles of what this guest runs on.
fn kept() -> Vec<u64> {
    let mut kept = Vec::new();
    each_handle(|handle| {
        if hvc::extent_info(handle).is_ok_and(|extent| extent.flags & extent_flags::MAPPED != 0) {
            kept.push(u64::from(handle.raw()));
        }
    });
    kept
}

fn remember(random: &mut Random, world: &mut World, call: Call, results: [u64; 3]) {
    let mut store = |list: &mut [u64], handle: u64| {
        let at = random.below(list.len() as u64) as usize;
        if let Some(place) = list.get_mut(at) {
            *place = handle;
        }
    };
    match call {
        Call::DomainCreate => {
            // The one that gives way ends, or the machine would soon be full.
            let old = world.domains.first().copied().unwrap_or(0);
            if old != 0 {
                let _ = child::destroy(Handle::from_raw(old as u32));
            }
            world.domains.rotate_left(1);
            if let Some(last) = world.domains.last_mut() {
                *last = results[0];
            }
        }
        Call::VcpuCreate => store(&mut world.vcpus, results[0]),
        Call::ExtentSplit | Call::PoolReclaim | Call::DeviceExtent => store(&mut world.extents, results[0]),
        Call::HandleCopy | Call::IrqCreate | Call::ExtentLend | Call::ExtentDonate => store(&mut world.any, results[0]),
        Call::PortPairCreate => {
            store(&mut world.any, results[0]);
            store(&mut world.any, results[1]);
        }
        _ => {}
    }
}

fn arguments(random: &mut Random, world: &World, call: Call) -> [u64; 6] {
    let mut arguments: [u64; 6] = core::array::from_fn(|_| argument(random, world));
    // Mostly calls that have a chance: the first arguments of the right kind.
    if random.below(4) == 0 {
        return arguments;
    }
    let domain = if random.below(6) == 0 { u64::from(SELF_DOMAIN.raw()) } else { random.pick(&world.domains, 0) };
    let extent = random.pick(&world.extents, 0);
    let number = call as u32;
    match call {
        Call::DomainCreate => {
            arguments = [random.below(40), 1 + random.below(4), 32 + random.below(8), 0, random.next(), 0];
        }
        Call::VcpuCreate => {
            arguments = [domain, random.below(4), random.below(4), dt::VCPU_PAGES + random.below(4) * PAGE_SIZE, 0, 0]
        }
        Call::ExtentMap => {
            let attributes = 1 | random.below(8);
            arguments = [extent, domain, dt::RAM_BASE + (random.below(64) << 16), attributes, 0, 0];
            if random.below(3) == 0 {
                arguments[0] = 0;
                arguments[4] = random.pick(&world.any, 0);
            }
        }
        Call::ExtentLend => arguments = [extent, domain, random.below(4), 1 + random.below(8), 1 | random.below(4), 0],
        Call::ExtentSplit => arguments[..2].copy_from_slice(&[extent, 1 + random.below(16)]),
        Call::ExtentMerge => arguments[..2].copy_from_slice(&[extent, random.pick(&world.extents, 0)]),
        Call::ExtentDonate | Call::ExtentUnmap => arguments[..3].copy_from_slice(&[extent, domain, 0]),
        Call::PoolAdd => arguments[..2].copy_from_slice(&[world.system, extent]),
        Call::VcpuStart => {
            arguments[..2].copy_from_slice(&[random.pick(&world.vcpus, 0), dt::RAM_BASE + (random.below(64) << 16)])
        }
        Call::VcpuSchedSet => {
            let class = u64::from(random.below(4) == 0);
            arguments = [
                random.pick(&world.vcpus, 0),
                class | random.below(1000) << 8,
                random.below(1100),
                1_000_000,
                random.below(500_000),
                random.below(4),
            ];
        }
        Call::PortPairCreate => arguments[..2].copy_from_slice(&[domain, u64::from(SELF_DOMAIN.raw())]),
        Call::PortBind | Call::IrqBind => arguments = [random.pick(&world.any, 0), 0, 100 + random.below(900), 0, 0, 0],
        Call::DeviceExtent => arguments = [world.system, random.below(1 << 32) & !0xfff, 1 + random.below(16), 0, 0, 0],
        Call::ExtentAddress => arguments[..2].copy_from_slice(&[world.system, extent]),
        Call::IrqCreate => arguments = [world.system, 32 + random.below(200), random.below(2), 0, 0, 0],
        Call::StatsRead | Call::PoolReclaim | Call::PoolInfo | Call::EntropyFeed | Call::SystemOff => {
            arguments[0] = world.system
        }
        Call::HandleCopy => arguments[1] = domain,
        _ if (0x100..0x110).contains(&number) => arguments[0] = domain,
        _ if (0x110..0x120).contains(&number) => arguments[0] = random.pick(&world.vcpus, 0),
        _ if (0x120..0x130).contains(&number) => arguments[0] = extent,
        _ => arguments[0] = random.pick(&world.any, 0),
    }
    arguments
}

fn argument(random: &mut Random, world: &World) -> u64 {
    match random.below(14) {
        0 => 0,
        1 => u64::MAX,
        2 => random.next(),
        3 => random.below(8),
        4 => random.below(2048),
        5 => 1 << random.below(64),
        6 => (1_u64 << random.below(64)).wrapping_sub(1),
        7 => u64::from(SELF_DOMAIN.raw()),
        8 => world.system,
        9 => random.pick(&world.domains, 0),
        10 => random.pick(&world.extents, 0),
        11 => random.pick(&world.vcpus, 0),
        12 => attrs::READ | attrs::WRITE,
        _ => random.pick(&world.any, 0),
    }
}

/// Destroys all domains that are left; complains about the first that cannot be.
fn end(world: &World) -> Option<Status> {
    // What the dying domains own falls to this one, which needs room for it: so the rest goes first.
    each_handle(|handle| {
        let is_small = hvc::handle_info(handle)
            .is_ok_and(|info| matches!(info.object, Some(ObjectType::Port | ObjectType::Irq | ObjectType::Vcpu)));
        if is_small && !world.kept.contains(&u64::from(handle.raw())) {
            let _ = hvc::handle_close(handle);
        }
    });
    let mut domains = Vec::new();
    each_handle(|handle| {
        if hvc::handle_info(handle).is_ok_and(|info| info.object == Some(ObjectType::Domain)) {
            domains.push(handle);
        }
    });
    // A copy without the right may be all that is left of one, and of one that is gone nothing is.
    domains
        .into_iter()
        .filter_map(|domain| child::destroy(domain).err())
        .find(|status| !matches!(status, Status::NoRights | Status::BadHandle))
}
