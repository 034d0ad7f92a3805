//! Finds devices in the device tree, for the front-ends in `device/*.c`.

use crate::text;
use core::ffi::c_char;
use portico_sdk::Status;
use portico_sdk::abi::dt;
use portico_sdk::dtb;

/// `struct portico_device` of the header.
#[repr(C)]
pub struct CDevice {
    window: usize,
    window_bytes: usize,
    cookie: u64,
    side: u32,
}

/// See `portico.h`.
///
/// # Safety
/// `compatible` and `name` are strings that end in NUL, `out` points to a writable `struct portico_device`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn portico_device_find(
    compatible: *const c_char,
    name: *const c_char,
    queue: u32,
    out: *mut CDevice,
) -> i64 {
    // SAFETY: the caller's promise.
    let (compatible, name) = unsafe { (text(compatible), text(name)) };
    let is_it = |node: &dtb::DeviceNode| node.name == name && node.number(dt::QUEUE).unwrap_or(0) == u64::from(queue);
    let Some(node) = dtb::devices(compatible).find(is_it) else { return Status::NotFound.raw() };
    let device = CDevice {
        window: node.window.base as usize,
        window_bytes: node.window.len as usize,
        cookie: node.cookie,
        side: node.side,
    };
    // SAFETY: the caller's promise.
    unsafe { out.write(device) };
    0
}
