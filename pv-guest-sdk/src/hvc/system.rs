//! Calls on the machine: for the holder of the System handle.

use super::{call, h, handle, unit, value};
use portico_abi::record::{EarlyText, PcpuStats, SystemStats};
use portico_abi::{Call, Handle, Status};

/// Gives a 2 MiB extent to EL2's pool; the handle is closed.
///
/// # Errors
/// `Invalid` if it is not 2 MiB long and aligned, `BadState` if it is mapped or lent.
pub fn pool_add(system: Handle, extent: Handle) -> Result<(), Status> {
    unit(Call::PoolAdd, [h(system), h(extent), 0, 0, 0, 0])
}

/// Takes a free block back out of the pool.
///
/// # Errors
/// `BadState` if there is none.
pub fn pool_reclaim(system: Handle) -> Result<Handle, Status> {
    handle(Call::PoolReclaim, [h(system), 0, 0, 0, 0, 0])
}

/// Pages in the pool, promised as budgets, and in use.
///
/// # Errors
/// `NoRights`.
pub fn pool_info(system: Handle) -> Result<(u64, u64, u64), Status> {
    call(Call::PoolInfo, [h(system), 0, 0, 0, 0, 0]).map(|[a, b, c]| (a, b, c))
}

/// Makes an extent of device memory at machine address `pa`.
///
/// # Errors
/// `Invalid` for RAM, for what EL2 uses itself, and for addresses that the machine does not have.
pub fn device_extent(system: Handle, pa: u64, pages: u64, cookie: u64) -> Result<Handle, Status> {
    handle(Call::DeviceExtent, [h(system), pa, pages, cookie, 0, 0])
}

/// Machine address of the first page of an extent.
///
/// # Errors
/// `NoRights`.
pub fn extent_address(system: Handle, extent: Handle) -> Result<u64, Status> {
    value(Call::ExtentAddress, [h(system), h(extent), 0, 0, 0, 0])
}

/// Mixes 32 bytes of entropy into EL2's generator.
///
/// # Errors
/// `NoRights`.
pub fn entropy_feed(system: Handle, words: [u64; 4]) -> Result<(), Status> {
    let [w0, w1, w2, w3] = words;
    unit(Call::EntropyFeed, [h(system), w0, w1, w2, w3, 0])
}

/// Figures of the whole machine.
///
/// # Errors
/// `NoRights`.
pub fn system_stats(system: Handle) -> Result<SystemStats, Status> {
    crate::vcpu::with_buffer(|| unit(Call::StatsRead, [h(system), 0, 0, 0, 0, 0]))
}

/// Figures of pCPU `pcpu`.
///
/// # Errors
/// `NotFound` if there is no such pCPU.
pub fn pcpu_stats(system: Handle, pcpu: u32) -> Result<PcpuStats, Status> {
    crate::vcpu::with_buffer(|| unit(Call::StatsRead, [h(system), u64::from(pcpu) + 1, 0, 0, 0, 0]))
}

/// The oldest text of a domain's `early_write` that waits in the log.
///
/// # Errors
/// `NotFound` if none waits.
pub fn log_read(system: Handle) -> Result<EarlyText, Status> {
    crate::vcpu::with_buffer(|| unit(Call::LogRead, [h(system), 0, 0, 0, 0, 0]))
}

/// Powers the machine off or resets it; `op` is one of [`portico_abi::call::power`]. Returns only if refused.
///
/// # Errors
/// `NoRights`.
pub fn system_off(system: Handle, op: u64) -> Result<(), Status> {
    unit(Call::SystemOff, [h(system), op, 0, 0, 0, 0])
}
