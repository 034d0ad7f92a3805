//! Cookies: what a handle in the manager's table is for. By them a manager that was begun anew finds what its last life left.

/// Kinds, in the highest byte.
const CONSOLE: u64 = 1 << 56;
const VCPU: u64 = 2 << 56;
const INTERRUPT: u64 = 3 << 56;
const CONTROL: u64 = 4 << 56;
const DOMAIN: u64 = 5 << 56;

/// Of a guest's domain.
pub const fn domain(id: usize) -> u64 {
    DOMAIN | id as u64
}

/// Of vCPU `index` of a guest.
pub const fn vcpu(id: usize, index: u16) -> u64 {
    VCPU | (id as u64) << 16 | index as u64
}

/// Of the manager's end of a guest's console port.
pub const fn console(id: usize) -> u64 {
    CONSOLE | id as u64
}

/// Of the manager's end of the port of a domain's control page.
pub const fn control(id: usize) -> u64 {
    CONTROL | id as u64
}

/// Of an interrupt of the machine.
pub const fn interrupt(intid: u32) -> u64 {
    INTERRUPT | intid as u64
}
