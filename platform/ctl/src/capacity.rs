//! Whether the machine has what the guests and services need together: processors, reserved time, memory.

use crate::device::service;
use crate::diagnostic::Sink;
use crate::guest::Draft;
use crate::image::Images;
use crate::machine::{Machine, RESERVED_BYTES};
use crate::section::At;
use crate::value::{format_cpus, format_size};
use portico_abi::PAGE_SIZE;
use portico_bundle::description::{Channel, Reservation};
use portico_core::runq::Admission;

/// What a guest or service asks of the processors.
struct Share<'d> {
    subject: &'d str,
    cpus: Option<&'d At<u64>>,
    affinity: u64,
    reservation: Option<&'d At<Reservation>>,
    vcpus: u16,
}

/// Refuses what the machine lacks.
pub(crate) fn check(
    drafts: &[Draft<'_>],
    services: &[service::Draft],
    channels: &[Channel],
    images: &Images,
    machine: &Machine,
    sink: &mut Sink<'_>,
) {
    let guests = drafts.iter().map(|draft| Share {
        subject: &draft.subject,
        cpus: draft.cpus.as_ref(),
        affinity: draft.guest.affinity,
        reservation: draft.reservation.as_ref(),
        vcpus: draft.guest.vcpus,
    });
    let services_shares = services.iter().map(|draft| Share {
        subject: &draft.subject,
        cpus: draft.cpus.as_ref(),
        affinity: draft.service.affinity,
        reservation: draft.reservation.as_ref(),
        vcpus: 1,
    });
    let shares: Vec<Share<'_>> = guests.chain(services_shares).collect();
    check_cpus(&shares, machine, sink);
    check_admission(&shares, machine, sink);
    let channels: u64 = channels.iter().map(|channel| u64::from(channel.pages)).sum();
    let windows: u64 = drafts.iter().map(|draft| window_pages(draft)).sum();
    let services: u64 = services.iter().map(|draft| draft.service.memory_pages).sum();
    let mib = |pages: u64| pages.saturating_mul(PAGE_SIZE).next_multiple_of(1 << 20);
    let beside = mib(channels + windows).saturating_add(mib(services));
    check_memory(drafts, machine, images, beside, sink);
}

/// Pages of the windows between a guest and the services.
fn window_pages(draft: &Draft<'_>) -> u64 {
    let disks = draft.guest.disks.iter().map(|disk| u64::from(disk.queues) * u64::from(disk.pages));
    disks.chain(draft.guest.vifs.iter().map(|vif| u64::from(vif.pages))).sum()
}

fn check_cpus(shares: &[Share<'_>], machine: &Machine, sink: &mut Sink<'_>) {
    for share in shares {
        let Some(cpus) = share.cpus else { continue };
        let beyond = cpus.value & !machine.cpu_mask();
        if beyond != 0 {
            let message =
                format!("`cpus` names {}, the machine has {}", format_cpus(beyond), format_cpus(machine.cpu_mask()));
            sink.add(
                &cpus.span,
                share.subject,
                message,
                "name processors that there are, or write `cpus` in `[system]`",
            );
        }
    }
}

/// Refuses reservations that EL2's admission test will refuse on this machine.
///
/// For each set of pCPUs that some guest is bound to, what is reserved by guests bound to pCPUs of that set must fit into it. A
/// system that passes can still be refused by EL2, which places whole vCPUs.
fn check_admission(shares: &[Share<'_>], machine: &Machine, sink: &mut Sink<'_>) {
    let all = machine.cpu_mask();
    let mask = |share: &Share<'_>| match share.affinity & all {
        0 => all,
        mask => mask,
    };
    let permille = |r: Reservation| (u64::from(r.budget_us) * 1000).div_ceil(u64::from(r.period_us.max(1)));
    let limit = u64::from(Admission::LIMIT_PERMILLE);
    let mut full: Vec<u64> = Vec::new();
    for share in shares {
        let Some(reservation) = share.reservation else {
            continue;
        };
        let own = permille(reservation.value);
        if own > limit {
            let message = format!("reserves {} % of a processor for a vCPU", percent(own));
            let help = format!("reserve at most {} %", percent(limit));
            sink.add(&reservation.span, share.subject, message, help);
            continue;
        }
        let set = mask(share);
        let within = |other: &&Share<'_>| mask(other) & !set == 0;
        let reserved: u64 = shares
            .iter()
            .filter(within)
            .filter_map(|other| Some(permille(other.reservation?.value).min(limit) * u64::from(other.vcpus)))
            .sum();
        let there = limit * u64::from(set.count_ones());
        if reserved > there && !full.contains(&set) {
            full.push(set);
            let message = format!(
                "{} % of a processor is reserved on processors {}, where {} % can be",
                percent(reserved),
                format_cpus(set),
                percent(there)
            );
            sink.add(&reservation.span, share.subject, message, "reserve less, or bind guests to other processors");
        }
    }
}

/// Formats thousandths as percent.
fn percent(permille: u64) -> String {
    match permille % 10 {
        0 => (permille / 10).to_string(),
        tenth => format!("{}.{tenth}", permille / 10),
    }
}

/// Which guests start with the machine: those that say so, and all that they depend on.
fn started(drafts: &[Draft<'_>]) -> Vec<bool> {
    let mut started = vec![false; drafts.len()];
    let autostart = |(index, draft): (usize, &Draft<'_>)| draft.guest.autostart.then_some(index);
    let mut left: Vec<usize> = drafts.iter().enumerate().filter_map(autostart).collect();
    while let Some(index) = left.pop() {
        let (Some(flag), Some(draft)) = (started.get_mut(index), drafts.get(index)) else {
            continue;
        };
        if !std::mem::replace(flag, true) {
            left.extend(draft.guest.depends.iter().map(|needed| usize::from(*needed)));
        }
    }
    started
}

/// Refuses guests that together need more than the machine has. Those that do not start with it are not counted. `beside` is what
/// services, channels and windows need, in bytes.
fn check_memory(drafts: &[Draft<'_>], machine: &Machine, images: &Images, beside: u64, sink: &mut Sink<'_>) {
    let bundle: u64 = images.list.iter().map(|image| image.bytes.len() as u64).sum();
    let bundle = bundle.next_multiple_of(1 << 20);
    let kept =
        RESERVED_BYTES.saturating_add(machine.kind.firmware_bytes()).saturating_add(bundle).saturating_add(beside);
    let free = machine.memory_bytes.saturating_sub(kept);
    let mut used = 0u64;
    for (draft, _) in drafts.iter().zip(started(drafts)).filter(|(_, started)| *started) {
        let Some(memory) = &draft.memory else {
            continue;
        };
        let before = used;
        used = used.saturating_add(memory.value);
        if used > free {
            let message = format!(
                "too much memory: with this guest's {} the guests need {}, the machine has {} for them ({} less {} for firmware, hypervisor, manager, services, bundle and channels)",
                format_size(memory.value),
                format_size(used),
                format_size(free),
                format_size(machine.memory_bytes),
                format_size(kept),
            );
            let help = if free > before {
                format!("write at most \"{}M\", or more `memory` in `[system]`", (free - before) >> 20)
            } else {
                String::from("write more `memory` in `[system]`")
            };
            sink.add(&memory.span, &draft.subject, message, help);
            return;
        }
    }
}
