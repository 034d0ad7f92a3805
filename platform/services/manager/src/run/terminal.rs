//! The machine's UART. The manager owns it; EL2 writes to it only at boot and in trouble.

use portico_abi::{Handle, PAGE_SIZE, Status};
use portico_boards::{Machine, Uart, UartInfo};
use portico_sdk::hvc::{self, Trigger};
use portico_sdk::{dtb, mem, port};

use crate::hv;

/// Most bytes that are taken from the UART at once.
const READ_AT_ONCE: usize = 64;

/// Where a person is.
#[derive(Debug)]
pub enum Terminal {
    /// A UART, with its interrupt if it has one.
    Uart {
        /// Its driver.
        uart: Uart,
        /// Interrupt and its port.
        interrupt: Option<(Handle, port::Port)>,
    },
    /// None was found: output goes through the hypervisor's log, and nothing can be typed.
    HypervisorLog,
}

impl Terminal {
    /// Finds the machine's UART and takes it over. Without one, or if it is refused, says why.
    pub fn open(system: Handle) -> (Self, Result<(), &'static str>) {
        let info = match machine_uart() {
            Ok(info) => info,
            Err(text) => return (Self::HypervisorLog, Err(text)),
        };
        match Self::take(system, &info) {
            Ok(terminal) => (terminal, Ok(())),
            Err(status) => (Self::HypervisorLog, Err(status.describe())),
        }
    }

    fn take(system: Handle, info: &UartInfo) -> Result<Self, Status> {
        let first = info.registers.start & !(PAGE_SIZE - 1);
        let inside = info.registers.start - first;
        let pages = inside.saturating_add(info.registers.len).div_ceil(PAGE_SIZE).clamp(1, 16);
        let extent = hvc::device_extent(system, first, pages, 0)?;
        let ipa = mem::DEVICES.start;
        let attributes = hv::READ_WRITE | portico_abi::call::attrs::DEVICE;
        hv::map_here(extent, ipa, attributes)?;
        // SAFETY: the UART's registers were just mapped there, for good; that range is device memory in stage 1.
        let uart = unsafe { Uart::new(info.kind, (ipa + inside) as usize) };
        // One that cannot interrupt can still be polled.
        let interrupt = info.interrupt.and_then(|intid| Self::interrupt(system, intid).ok());
        if interrupt.is_some() {
            uart.enable_receive_interrupt();
        }
        Ok(Self::Uart { uart, interrupt })
    }

    fn interrupt(system: Handle, intid: u32) -> Result<(Handle, port::Port), Status> {
        let irq = hvc::irq_create(system, intid, Trigger::Level, 0)?;
        let bit = port::take_bit()?;
        hvc::irq_bind(irq, 0, bit)?;
        Ok((irq, port::Port::fixed(0, bit)))
    }

    /// Whether it must be looked at from time to time because nothing announces input.
    pub fn needs_polling(&self) -> bool {
        matches!(self, Self::Uart { interrupt: None, .. })
    }

    /// Takes what was typed, a bounded number of bytes. Returns whether there may be more.
    pub fn read(&mut self, mut take: impl FnMut(u8)) -> bool {
        let Self::Uart { uart, interrupt } = self else { return false };
        if let Some((_, port)) = interrupt {
            if !port.is_pending() {
                return false;
            }
            // Before the bytes are taken: one that comes while they are raises it again.
            uart.acknowledge_receive_interrupt();
        }
        for _ in 0..READ_AT_ONCE {
            match uart.get() {
                Some(byte) => take(byte),
                None => {
                    if let Some((irq, port)) = interrupt {
                        let _ = port.take();
                        let _ = hvc::irq_complete(*irq);
                    }
                    return false;
                }
            }
        }
        true
    }

    /// Writes as many of `bytes` as it takes at once; returns how many.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Uart { uart, .. } => bytes.iter().take_while(|&&byte| uart.try_put(byte)).count(),
            Self::HypervisorLog => {
                let chunk = bytes.get(..40).unwrap_or(bytes);
                match hvc::early_write(chunk) {
                    Err(Status::RateLimited) => 0,
                    _ => chunk.len(),
                }
            }
        }
    }

    /// Waits until everything has left.
    pub fn flush(&self) {
        if let Self::Uart { uart, .. } = self {
            uart.flush();
        }
    }
}

/// The machine's device tree.
pub fn machine_tree() -> Option<&'static [u8]> {
    let range = dtb::machine_dtb()?;
    let first = core::ptr::with_exposed_provenance::<u8>(range.base as usize);
    // SAFETY: EL2 mapped the machine's device tree there, read-only and for good.
    Some(unsafe { core::slice::from_raw_parts(first, range.len as usize) })
}

fn machine_uart() -> Result<UartInfo, &'static str> {
    let bytes = machine_tree().ok_or("EL2 gave no machine device tree")?;
    let mut machine = Machine::default();
    let read = machine.read(bytes);
    // A tree that is odd elsewhere is EL2's concern.
    match (machine.uart, read) {
        (Some(uart), _) => Ok(uart),
        (None, Err(error)) => Err(error.text()),
        (None, Ok(())) => Err("the machine has no UART that is known here"),
    }
}
