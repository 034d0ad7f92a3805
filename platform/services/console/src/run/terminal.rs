//! The UART that the manager gave.

use portico_abi::{Handle, PAGE_SIZE, dt};
use portico_boards::{Uart, UartKind};
use portico_sdk::dtb;
use portico_sdk::dtb::DeviceNode;
use portico_service::machine::Interrupt;

use crate::receive::{Received, Receiver};
use crate::registers::Registers;
use crate::send::Sender;

/// The UART.
#[derive(Debug)]
pub struct Terminal {
    uart: Uart,
    sender: Sender,
    receiver: Receiver,
    interrupt: Option<Interrupt>,
    /// There may be input whatever the interrupt says.
    is_ready: bool,
}

impl Terminal {
    /// Takes the UART of the device tree over. `None` if there is none that is known.
    pub fn open() -> Option<Terminal> {
        let node = dtb::devices(dt::UART).next()?;
        let kind = kind_of(&node)?;
        let base = node.window.base as usize;
        if node.window.len > 16 * PAGE_SIZE {
            return None;
        }
        // SAFETY: the manager mapped its registers there, for the life of the domain; the range is device memory in stage 1.
        let (uart, registers) = unsafe { (Uart::new(kind, base), Registers::new(kind, base)) };
        let (sender, receiver) = (Sender::new(registers), Receiver::new(registers));
        // One that cannot interrupt can still be polled.
        let handle = Handle::from_raw(node.number(dt::INTERRUPT).unwrap_or(0) as u32);
        let interrupt = (handle != Handle::NONE).then(|| Interrupt::bind(handle).ok()).flatten();
        if let Some(interrupt) = &interrupt {
            receiver.enable_interrupt();
            // The last instance may have ended before it said so.
            interrupt.complete();
        }
        // Bytes that the last instance left raise no interrupt by themselves.
        Some(Terminal { uart, sender, receiver, interrupt, is_ready: true })
    }

    /// Whether it must be looked at from time to time because nothing announces input.
    pub fn needs_polling(&self) -> bool {
        self.interrupt.is_none()
    }

    /// Whether there may be input. To be asked before it is taken.
    pub fn has_input(&mut self) -> bool {
        if let Some(interrupt) = &self.interrupt
            && interrupt.take()
        {
            self.is_ready = true;
            // Before the bytes are taken: one that comes while they are raises it again.
            self.receiver.acknowledge_interrupt();
            interrupt.complete();
        }
        self.is_ready || self.interrupt.is_none()
    }

    /// Whether not all input was taken.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Takes what came next.
    pub fn get(&mut self) -> Received {
        let received = self.receiver.get();
        self.is_ready = received != Received::Nothing;
        received
    }

    /// Its sending half.
    pub fn sender(&self) -> Sender {
        self.sender
    }

    /// Waits until everything has left.
    pub fn flush(&self) {
        self.uart.flush();
    }
}

fn kind_of(node: &DeviceNode) -> Option<UartKind> {
    match node.text(dt::service::UART_KIND)? {
        "pl011" => Some(UartKind::Pl011),
        "ns16550" => Some(UartKind::Ns16550 {
            register_shift: node.number(dt::service::REGISTER_SHIFT)? as u8,
            wide: node.bytes(dt::service::REGISTER_WIDE).is_some(),
        }),
        _ => None,
    }
}
