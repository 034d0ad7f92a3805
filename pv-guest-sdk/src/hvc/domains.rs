//! Calls on domains.

use super::{Progress, call_piece, h, handle, unit};
use portico_abi::record::DomainStatus;
use portico_abi::{Call, Handle, Status};

/// Creates a domain with `budget` pages for its objects.
///
/// # Errors
/// `NoBudget` if the pool lacks pages, `Invalid` for arguments out of range.
pub fn domain_create(budget: u64, max_vcpus: u32, ipa_bits: u32, cookie: u64) -> Result<Handle, Status> {
    handle(Call::DomainCreate, [budget, u64::from(max_vcpus), u64::from(ipa_bits), 0, cookie, 0])
}

/// Sets a property; `key` is one of [`portico_abi::call::config`].
///
/// # Errors
/// `BadState` after the start, for keys that are fixed then.
pub fn domain_config(domain: Handle, key: u64, value: u64) -> Result<(), Status> {
    unit(Call::DomainConfig, [h(domain), key, value, 0, 0, 0])
}

/// Sets the name by which EL2 prints a domain. At most 16 bytes; more are cut.
///
/// # Errors
/// As [`domain_config`].
pub fn domain_name(domain: Handle, name: &str) -> Result<(), Status> {
    let mut raw = [0_u8; 16];
    for (to, from) in raw.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    let both = u128::from_le_bytes(raw);
    domain_config(domain, portico_abi::call::config::NAME_LO, both as u64)?;
    domain_config(domain, portico_abi::call::config::NAME_HI, (both >> 64) as u64)
}

/// Pauses or resumes a domain; `op` is one of [`portico_abi::call::run`].
///
/// # Errors
/// `BadState` if the domain has ended.
pub fn domain_run(domain: Handle, op: u64) -> Result<(), Status> {
    unit(Call::DomainRun, [h(domain), op, 0, 0, 0, 0])
}

/// Does a piece of destroying a domain.
///
/// # Errors
/// `BadHandle`, `NoRights`.
pub fn domain_destroy(domain: Handle) -> Result<Progress, Status> {
    call_piece(Call::DomainDestroy, [h(domain), 0, 0, 0, 0, 0])
}

/// State, end reason and accounts of a domain.
///
/// # Errors
/// `BadHandle`, `NoRights`.
pub fn domain_status(domain: Handle) -> Result<DomainStatus, Status> {
    crate::vcpu::with_buffer(|| unit(Call::DomainStatus, [h(domain), 0, 0, 0, 0, 0]))
}

/// Changes a domain's budget, in pages.
///
/// # Errors
/// `NoBudget`.
pub fn domain_budget(domain: Handle, pages: u64) -> Result<(), Status> {
    unit(Call::DomainBudget, [h(domain), pages, 0, 0, 0, 0])
}
