//! The other vCPUs: starting them, and interrupting them.
//!
//! PSCI starts them (Arm DEN0022, "CPU_ON"); a port pair of the domain with itself is an inter-processor interrupt.

use crate::port::{self, Handler, Port};
use portico_abi::{Handle, Status};

#[cfg(all(target_os = "none", feature = "runtime"))]
pub use start::start;

/// Why a vCPU was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// There is no such vCPU.
    NoSuchVcpu,
    /// No memory for its stack.
    NoMemory,
    /// PSCI refused, with this value.
    Psci(i64),
}

/// A way to interrupt one vCPU.
#[derive(Clone, Copy, Debug)]
pub struct Ipi {
    sender: Handle,
    receiver: Port,
}

impl Ipi {
    /// Makes a way to call `handler` on vCPU `vcpu`. Many notifications before it runs are one call.
    ///
    /// # Errors
    /// `NoBudget`, `Limit`, `NotFound` if there is no such vCPU.
    pub fn new(vcpu: u32, handler: Handler, argument: usize) -> Result<Ipi, Status> {
        let (sender, receiver) = port::pair()?;
        let bit = port::take_bit()?;
        // Before the bind: a handler must be there when the first notification comes.
        port::set_handler(bit, handler, argument);
        let receiver = Port::bind_at(receiver, vcpu, bit)?;
        Ok(Ipi { sender, receiver })
    }

    /// Interrupts the vCPU.
    ///
    /// # Errors
    /// None in a healthy guest.
    #[inline]
    pub fn send(&self) -> Result<(), Status> {
        crate::hvc::port_notify(self.sender)
    }

    /// The receiving port.
    pub fn receiver(&self) -> Port {
        self.receiver
    }
}

/// Turns the calling vCPU off. Returns only if PSCI refuses.
pub fn off() -> i64 {
    crate::hvc::raw(u64::from(portico_abi::psci::CPU_OFF), [0; 6])[0].cast_signed()
}

#[cfg(all(target_os = "none", feature = "runtime"))]
mod start {
    use super::StartError;
    use crate::{hvc, irq, vcpu};
    use alloc_crate::alloc::{Layout, alloc, dealloc};
    use portico_abi::{call::info, psci};

    /// Bytes of the stack of each further vCPU.
    const STACK_BYTES: usize = 64 << 10;

    /// What a starting vCPU finds at the top of its stack. The entry code reads it before its MMU is on.
    #[repr(C, align(64))]
    struct Ticket {
        function: fn(usize),
        argument: usize,
        index: u64,
        stack_top: u64,
    }

    /// Starts vCPU `index`, which runs `function(argument)` with interrupts unmasked and turns itself off after it.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(index: u32, function: fn(usize), argument: usize) -> Result<(), StartError> {
        let mpidr = hvc::self_info(info::VCPU_MPIDR, u64::from(index)).map_err(|_| StartError::NoSuchVcpu)?;
        let layout = Layout::from_size_align(STACK_BYTES, 64).map_err(|_| StartError::NoMemory)?;
        // SAFETY: the layout has a size. The stack of a vCPU that starts is never given back: it can be turned off at any time.
        let stack = unsafe { alloc(layout) };
        if stack.is_null() {
            return Err(StartError::NoMemory);
        }
        let top = stack.wrapping_add(STACK_BYTES - size_of::<Ticket>()).cast::<Ticket>();
        let ticket = Ticket { function, argument, index: u64::from(index), stack_top: top.addr() as u64 };
        // SAFETY: inside the fresh stack, aligned since both the stack and the ticket's size are multiples of 64.
        unsafe { top.write(ticket) };
        // The new vCPU reads it with its caches off.
        crate::mem::clean_invalidate(top.addr(), size_of::<Ticket>());
        let entry = crate::start::secondary_entry();
        let result = hvc::raw(u64::from(psci::CPU_ON_64), [mpidr & 0xff_00ff_ffff, entry, top.addr() as u64, 0, 0, 0]);
        match result[0].cast_signed() {
            psci::ret::SUCCESS => Ok(()),
            refused => {
                // SAFETY: allocated above with this layout; the vCPU did not start, so nobody uses it.
                unsafe { dealloc(stack, layout) };
                Err(StartError::Psci(refused))
            }
        }
    }

    /// First Rust code of a further vCPU, on its own stack, with MMU and caches on.
    #[unsafe(no_mangle)]
    extern "C" fn portico_secondary_rust(ticket: *const Ticket) -> ! {
        // SAFETY: `start` made it and nobody else uses it.
        let Ticket { function, argument, index, .. } = unsafe { ticket.read() };
        // SAFETY: first thing on this vCPU, with its own index.
        unsafe { vcpu::init(index as u32) };
        irq::init();
        irq::unmask();
        function(argument);
        irq::mask();
        let _ = super::off();
        crate::exit::halted()
    }
}
