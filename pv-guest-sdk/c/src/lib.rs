//! The guest SDK as a static library for C.
//!
//! Each function here is declared in `include/portico.h`, where its contract is written for a C reader. The guest defines
//! `uint64_t portico_main(void)`. What a call needs no library for is an inline function of the header.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(not(target_os = "none"), allow(dead_code, reason = "the guest that uses it exists on the target only"))]

extern crate alloc;

mod channel;
mod device;
mod memory;
mod port;

use alloc::vec::Vec;
use core::ffi::{CStr, c_char};
use core::time::Duration;
use portico_sdk::abi::Status;
use portico_sdk::control::Ask;
use portico_sdk::{console, control, dtb, exit, irq, print, smp, time, vcpu};

portico_sdk::entry!(run);

unsafe extern "C" {
    /// The guest.
    fn portico_main() -> u64;
}

fn run() -> u64 {
    // SAFETY: the guest defines it as the header says.
    unsafe { portico_main() }
}

/// The bytes at `start`.
///
/// # Safety
/// As `core::slice::from_raw_parts`, but null is allowed with length 0.
unsafe fn bytes<'a>(start: *const u8, len: usize) -> &'a [u8] {
    if start.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts(start, len) }
}

/// A C string as text; empty if it is null or not UTF-8.
///
/// # Safety
/// `text` is null or a string that ends in NUL.
unsafe fn text<'a>(text: *const c_char) -> &'a str {
    if text.is_null() {
        return "";
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap_or("")
}

/// See `portico.h`.
///
/// # Safety
/// `start` points to `len` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_write(start: *const u8, len: usize) {
    // SAFETY: the caller's promise.
    console::write(unsafe { bytes(start, len) });
}

/// See `portico.h`.
///
/// # Safety
/// `line` is null or a string that ends in NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_print(line: *const c_char) {
    if !line.is_null() {
        // SAFETY: the caller's promise.
        console::write(unsafe { CStr::from_ptr(line) }.to_bytes());
    }
}

/// See `portico.h`.
///
/// # Safety
/// `start` points to `len` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_write_some(start: *const u8, len: usize) -> usize {
    // SAFETY: the caller's promise.
    console::write_some(unsafe { bytes(start, len) })
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_print_unsigned(value: u64) {
    print!("{value}");
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_print_hex(value: u64) {
    print!("{value:#x}");
}

/// See `portico.h`.
///
/// # Safety
/// `to` points to `len` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_read(to: *mut u8, len: usize) -> usize {
    if to.is_null() || len == 0 {
        return 0;
    }
    // SAFETY: the caller's promise.
    console::read(unsafe { core::slice::from_raw_parts_mut(to, len) })
}

/// See `portico.h`.
///
/// # Safety
/// `out` points to a writable `struct portico_port`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_console_port(out: *mut port::CPort) -> bool {
    let Some(port) = console::port() else { return false };
    // SAFETY: the caller's promise.
    unsafe { out.write(port::CPort::of(&port)) };
    true
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_breaks() -> u32 {
    console::breaks()
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_heartbeat() {
    control::heartbeat();
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_watchdog(limit_ms: u32) {
    control::watchdog(Duration::from_millis(u64::from(limit_ms)));
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_able(asks: u32) {
    let known = [Ask::PowerOff, Ask::Reboot, Ask::Suspend];
    let asks: Vec<Ask> = known.into_iter().filter(|ask| asks & 1 << *ask as u32 != 0).collect();
    control::able(&asks);
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_asked() -> i32 {
    control::asked().map_or(-1, |ask| ask as i32)
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_sleep() -> i64 {
    control::sleep().map_or_else(Status::raw, |ask| ask as i64)
}

/// See `portico.h`.
///
/// # Safety
/// `out` points to a writable `struct portico_port`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_control_port(out: *mut port::CPort) -> i64 {
    match control::port() {
        Ok(port) => {
            // SAFETY: the caller's promise.
            unsafe { out.write(port::CPort::of(&port)) };
            0
        }
        Err(status) => status.raw(),
    }
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_wall_ns() -> u64 {
    control::wall_time().and_then(|time| u64::try_from(time.as_nanos()).ok()).unwrap_or(0)
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_exit(code: u64) -> ! {
    exit::exit(code)
}

/// See `portico.h`.
///
/// # Safety
/// `reason` is null or a string that ends in NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_panic(reason: *const c_char) -> ! {
    // SAFETY: the caller's promise.
    unsafe { portico_print(reason) };
    print!("\n");
    exit::panic(1)
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_now() -> u64 {
    time::now()
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_now_ns() -> u64 {
    time::now_ns()
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_counter_hz() -> u32 {
    time::Scale::read().hz
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_deadline_ns(after_ns: u64) -> u64 {
    time::deadline(Duration::from_nanos(after_ns))
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_sleep_ns(ns: u64) {
    time::sleep(Duration::from_nanos(ns));
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_timer_arm(deadline: u64) {
    time::arm(deadline);
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_timer_disarm() {
    time::disarm();
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_irq_mask() {
    irq::mask();
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_irq_unmask() {
    irq::unmask();
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_upcall() {
    irq::upcall();
}

/// See `portico.h`.
///
/// # Safety
/// `to` points to `len` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_bootargs(to: *mut u8, len: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { copy_text(dtb::bootargs(), to, len) }
}

/// See `portico.h`.
///
/// # Safety
/// `to` points to `len` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_domain_name(to: *mut u8, len: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { copy_text(dtb::name(), to, len) }
}

/// Copies text as a C string, cut to `len` with its NUL; returns the length of the whole.
unsafe fn copy_text(from: &str, to: *mut u8, len: usize) -> usize {
    if !to.is_null() && len > 0 {
        let count = from.len().min(len - 1);
        // SAFETY: `count + 1 <= len`, and the two cannot overlap: the text is in the device tree.
        unsafe {
            core::ptr::copy_nonoverlapping(from.as_ptr(), to, count);
            to.add(count).write(0);
        }
    }
    from.len()
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_vcpu_index() -> u32 {
    vcpu::index()
}

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_vcpu_count() -> u32 {
    vcpu::count()
}

/// What a further vCPU runs, and with what.
struct Start(extern "C" fn(usize), usize);

/// See `portico.h`.
#[unsafe(no_mangle)]
pub extern "C" fn portico_vcpu_start(index: u32, function: extern "C" fn(usize), argument: usize) -> i64 {
    #[cfg(target_os = "none")]
    {
        use portico_sdk::Status;
        let start = alloc::boxed::Box::leak(alloc::boxed::Box::new(Start(function, argument)));
        match smp::start(index, run_started, core::ptr::from_mut(start).expose_provenance()) {
            Ok(()) => 0,
            Err(smp::StartError::NoSuchVcpu) => Status::NotFound.raw(),
            Err(smp::StartError::NoMemory) => Status::NoBudget.raw(),
            Err(smp::StartError::Psci(_)) => Status::BadState.raw(),
        }
    }
    #[cfg(not(target_os = "none"))]
    {
        let _ = (index, Start(function, argument), smp::off as fn() -> i64);
        portico_sdk::Status::NotSupported.raw()
    }
}

#[cfg(target_os = "none")]
fn run_started(start: usize) {
    // SAFETY: the leaked box of `portico_vcpu_start`, which hands it to one vCPU only.
    let Start(function, argument) =
        *unsafe { alloc::boxed::Box::from_raw(core::ptr::with_exposed_provenance_mut::<Start>(start)) };
    function(argument);
}
