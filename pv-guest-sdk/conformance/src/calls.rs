//! ABI.md, "Calls", "Handles and rights": decoding, statuses, preserved registers.

use crate::tap::Tap;
use core::arch::{asm, global_asm};
use core::time::Duration;
use portico_sdk::abi::call::{Call, MANAGEMENT_BASE, SVE_HINT, info};
use portico_sdk::abi::handle::SELF_DOMAIN;
use portico_sdk::abi::{VERSION_MAJOR, dt};
use portico_sdk::{Handle, Rights, Status, hvc, irq, port, time, trap};

const NOT_SUPPORTED: u64 = Status::NotSupported.raw().cast_unsigned();

/// All checks.
pub fn check(tap: &mut Tap) {
    decoding(tap);
    about_oneself(tap);
    handles(tap);
    no_authority(tap);
    preservation(tap);
}

fn status(id: u64, arguments: [u64; 6]) -> u64 {
    hvc::raw(id, arguments)[0]
}

fn decoding(tap: &mut Tap) {
    let features = u64::from(Call::AbiFeatures.function_id());
    let version = hvc::abi_features(0).map(|(version, _, _)| version >> 16);
    tap.is("calls: the major version is ours", version, Ok(u64::from(VERSION_MAJOR)));
    tap.is("calls: the SVE hint is ignored", status(features | u64::from(SVE_HINT), [0; 6]), 0);
    tap.is("calls: bits 63:32 of x0 are ignored", status(features | 0xdead_beef << 32, [0; 6]), 0);
    tap.is("calls: registers that are not arguments are ignored", status(features, [0, 1, 2, 3, 4, u64::MAX]), 0);
    tap.is("calls: another page of features is zeros", hvc::abi_features(1), Ok((0, 0, 0)));
    let unknown = (0..=0xffff_u64)
        .filter(|&number| Call::from_number(number as u32).is_none())
        .filter(|&number| number < 0x400 || number % 97 == 0)
        .find(|&number| status(0xc600_0000 + number, [0; 6]) != NOT_SUPPORTED);
    tap.is("calls: every unknown number is NotSupported", unknown, None);
    let foreign = [0, 0x8600_0000, 0xc400_0fff, 0xc500_0000, 0x4600_0000, 0xffff_ffff, 0x8400_001f, 0xbf00_0000];
    let answered = foreign.into_iter().find(|&id| status(id, [0; 6]) != NOT_SUPPORTED);
    tap.is("calls: ids of nobody are NotSupported", answered, None);
    let reserved = [Call::ExtentSeal, Call::DomainClone, Call::DirtyLog, Call::DomainTime];
    let offered = reserved.into_iter().find(|call| status(u64::from(call.function_id()), [0; 6]) != NOT_SUPPORTED);
    tap.is("calls: reserved numbers are NotSupported", offered, None);
    let ((), caught) = trap::catch(|| {
        // SAFETY: a call by another immediate, which must be refused; an exception is caught and the instruction skipped.
        unsafe { asm!("hvc #1", inout("x0") features => _, out("x1") _, out("x2") _, out("x3") _, options(nostack)) };
    });
    tap.is("calls: hvc with another immediate is undefined", caught.map(|caught| caught.is_undefined()), Some(true));
    let mut x0 = features;
    // SAFETY: a refused call.
    unsafe { asm!("smc #0", inout("x0") x0, out("x1") _, out("x2") _, out("x3") _, options(nostack)) };
    tap.is("calls: smc is refused and stepped over", x0, NOT_SUPPORTED);
}

fn about_oneself(tap: &mut Tap) {
    tap.is("self_info: unknown key", hvc::self_info(0x1234, 0), Err(Status::NotFound));
    tap.is("self_info: vCPU out of range", hvc::self_info(info::VCPU_PAGE_IPA, 1000), Err(Status::NotFound));
    tap.holds(
        "self_info: the upcall is not an SGI",
        hvc::self_info(info::UPCALL_VINTID, 0).is_ok_and(|id| (16..1020).contains(&id)),
    );
    tap.holds(
        "self_info: the upcall is acknowledged by 2 or 3",
        matches!(hvc::self_info(info::UPCALL_KIND, 0), Ok(2 | 3)),
    );
    tap.is("self_info: index of the boot vCPU", hvc::self_info(info::VCPU_INDEX, 0), Ok(0));
    tap.is("self_info: page of vCPU 0", hvc::self_info(info::VCPU_PAGE_IPA, 0), Ok(dt::VCPU_PAGES));
    tap.is("self_info: information page", hvc::self_info(info::INFO_PAGE_IPA, 0), Ok(dt::INFO_PAGE));
    tap.is("self_info: no System handle for a guest", hvc::self_info(info::SYSTEM_HANDLE, 0), Err(Status::NotFound));
    let early = u64::from(Call::EarlyWrite.function_id());
    let invalid = Status::Invalid.raw().cast_unsigned();
    tap.is("early_write: no bytes", status(early, [0; 6]), invalid);
    tap.is("early_write: too many bytes", status(early, [41, 0, 0, 0, 0, 0]), invalid);
    tap.is("self_exit: unknown kind", status(u64::from(Call::SelfExit.function_id()), [77, 0, 0, 0, 0, 0]), invalid);
}

fn handles(tap: &mut Tap) {
    let bad = Handle::new(0x7ff0, 3);
    tap.is("handles: zero names nothing", hvc::port_notify(Handle::NONE), Err(Status::BadHandle));
    tap.is("handles: an unused slot names nothing", hvc::handle_info(bad).err(), Some(Status::BadHandle));
    let Ok((a, b)) = port::pair() else {
        tap.holds("handles: a pair of ports", false);
        return;
    };
    tap.holds("handles: a pair of ports", true);
    let read_only = hvc::handle_copy(a, SELF_DOMAIN, Rights::INSPECT, 0x1234_5678_9abc_def0);
    tap.holds("handles: a copy with fewer rights", read_only.is_ok());
    let copy = read_only.unwrap_or(Handle::NONE);
    let seen = hvc::handle_info(copy).map(|info| (info.rights, info.cookie));
    tap.is("handles: the copy has its rights and cookie", seen, Ok((Rights::INSPECT, 0x1234_5678_9abc_def0)));
    tap.is("handles: without the right it is NoRights", hvc::port_notify(copy), Err(Status::NoRights));
    tap.is(
        "handles: a copy never gains",
        hvc::handle_copy(copy, SELF_DOMAIN, Rights::NOTIFY, 0).err(),
        Some(Status::NoRights),
    );
    tap.is("handles: a port is no domain", hvc::domain_run(a, 0), Err(Status::WrongType));
    tap.holds("handles: closing", hvc::handle_close(copy).is_ok());
    tap.is("handles: closed is closed", hvc::handle_info(copy).err(), Some(Status::BadHandle));
    let again = hvc::handle_copy(a, SELF_DOMAIN, Rights::INSPECT, 0).unwrap_or(Handle::NONE);
    tap.holds("handles: a reused slot has another generation", again != copy);
    let _ = hvc::handle_close(again);
    let mut listed = 0;
    let mut cursor = 0;
    while let Ok((handle, next)) = hvc::handle_next(SELF_DOMAIN, cursor) {
        listed += u32::from(handle == a || handle == b);
        cursor = next;
    }
    tap.is("handles: handle_next lists them", listed, 2);
    tap.holds("ports: closing one end", hvc::handle_close(b).is_ok());
    tap.is("ports: the other end hears PeerGone", hvc::port_notify(a), Err(Status::PeerGone));
    tap.is("ports: and its state says so", hvc::handle_info(a).map(|info| info.state), Ok(1));
    let _ = hvc::handle_close(a);
    tap.is("handles: slots and budget come back", (0..5000).try_for_each(|_| make_and_close()), Ok(()));
}

/// Far more of these fit into a life than into a table. What is closed may come back a moment later.
fn make_and_close() -> Result<(), Status> {
    let mut made = port::pair();
    for _ in 0..100 {
        if made != Err(Status::NoBudget) {
            break;
        }
        time::sleep(Duration::from_millis(1));
        made = port::pair();
    }
    let (a, b) = made?;
    hvc::handle_close(a)?;
    hvc::handle_close(b)
}

/// An ordinary guest holds nothing that management calls need.
fn no_authority(tap: &mut Tap) {
    for arguments in [[0; 6], [u64::from(SELF_DOMAIN.raw()); 6], [u64::MAX; 6]] {
        let served = Call::TABLE
            .iter()
            .filter(|row| row.number >= MANAGEMENT_BASE)
            .filter(|row| !matches!(row.call, Call::DomainStatus))
            .find(|row| (status(u64::from(row.call.function_id()), arguments)).cast_signed() >= 0);
        tap.is("authority: no management call succeeds without a handle", served.map(|row| row.name), None);
    }
}

// conformance_preserved(id, argument): makes the call with patterns in x4..x30 and returns the number that changed.
global_asm!(
    ".section .text.conformance_preserved, \"ax\"",
    "conformance_preserved:",
    "stp x29, x30, [sp, #-96]!",
    "stp x19, x20, [sp, #16]",
    "stp x21, x22, [sp, #32]",
    "stp x23, x24, [sp, #48]",
    "stp x25, x26, [sp, #64]",
    "stp x27, x28, [sp, #80]",
    ".irp n,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30",
    "movz x\\n, #(0x5a00 + \\n)",
    "movk x\\n, #(0x1000 + \\n), lsl #48",
    ".endr",
    "hvc #0",
    "mov x2, #0",
    ".irp n,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30",
    "movz x1, #(0x5a00 + \\n)",
    "movk x1, #(0x1000 + \\n), lsl #48",
    "cmp x1, x\\n",
    "cinc x2, x2, ne",
    ".endr",
    "mov x0, x2",
    "ldp x19, x20, [sp, #16]",
    "ldp x21, x22, [sp, #32]",
    "ldp x23, x24, [sp, #48]",
    "ldp x25, x26, [sp, #64]",
    "ldp x27, x28, [sp, #80]",
    "ldp x29, x30, [sp], #96",
    "ret",
);

unsafe extern "C" {
    fn conformance_preserved(function: u64, argument: u64) -> u64;
}

fn preservation(tap: &mut Tap) {
    let soon = time::now() + 20_000;
    let calls = [
        ("calls: abi_features preserves x4 to x30", Call::AbiFeatures, 0),
        ("calls: self_info preserves x4 to x30", Call::SelfInfo, info::VCPU_COUNT),
        ("calls: port_notify preserves x4 to x30", Call::PortNotify, 0),
        ("calls: vcpu_yield preserves x4 to x30", Call::VcpuYield, 0),
        ("calls: vcpu_block preserves x4 to x30", Call::VcpuBlock, soon),
    ];
    let _guard = irq::Guard::new();
    for (name, call, argument) in calls {
        // SAFETY: the function keeps to the procedure call standard.
        let changed = unsafe { conformance_preserved(u64::from(call.function_id()), argument) };
        tap.is(name, changed, 0);
    }
    // SAFETY: as above.
    let changed = unsafe { conformance_preserved(u64::from(portico_sdk::abi::psci::PSCI_VERSION), 0) };
    tap.is("calls: PSCI_VERSION preserves x4 to x30", changed, 0);
    let (_, caught) = trap::catch(|| hvc::raw(u64::from(Call::AbiFeatures.function_id()), [0; 6]));
    tap.is("calls: no exception on the way", caught, None);
}
