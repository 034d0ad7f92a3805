//! Devices of the machine that the manager gave to the service.

use portico_abi::{Handle, Status, dt};
use portico_sdk::hvc;
use portico_sdk::port::{self, Port};
use portico_sdk::window::Window;
use portico_sdk::{dtb, dtb::Range};
use portico_virtio::{Area, Dma};

/// A device of the machine.
#[derive(Clone, Copy, Debug)]
pub struct MachineDevice {
    /// IPA of its registers.
    pub registers: Range,
    /// Its interrupt, in the service's table.
    pub interrupt: Handle,
}

/// The devices that are `compatible`, as the machine's own device tree calls them.
pub fn devices(compatible: &'static str) -> impl Iterator<Item = MachineDevice> {
    dtb::devices(compatible).map(|node| MachineDevice {
        registers: node.window,
        interrupt: Handle::from_raw(node.number(dt::INTERRUPT).unwrap_or(0) as u32),
    })
}

/// Memory that devices may reach. `None` if the manager gave none.
pub fn dma() -> Option<Dma> {
    let node = dtb::devices(dt::DMA).next()?;
    // SAFETY: the manager mapped it for the life of the domain, and nothing else of the guest is there.
    let window = unsafe { Window::new(node.window.base, node.window.len as usize) }?;
    Some(Dma::new(Area { window, machine: node.number(dt::MACHINE_ADDRESS)? }))
}

/// An interrupt of the machine, as a port.
#[derive(Clone, Copy, Debug)]
pub struct Interrupt {
    handle: Handle,
    port: Port,
}

impl Interrupt {
    /// Binds it to the calling vCPU, and enables it.
    ///
    /// # Errors
    /// Those of `irq_bind`; `Limit` if no bit is free.
    pub fn bind(handle: Handle) -> Result<Interrupt, Status> {
        let bit = port::take_bit()?;
        let vcpu = portico_sdk::vcpu::index();
        hvc::irq_bind(handle, vcpu, bit)?;
        Ok(Interrupt { handle, port: Port::fixed(vcpu, bit) })
    }

    /// Whether it fired since the last time.
    #[inline]
    pub fn take(&self) -> bool {
        self.port.take()
    }

    /// Lets it fire again, after the device was told.
    pub fn complete(&self) {
        let _ = hvc::irq_complete(self.handle);
    }
}
