//! A virtio network device. (VIRTIO 1.2, "Network Device")

use portico_net::offload::Cut;
use portico_net::switch::Reason;
use portico_net::traffic::Uplink;
use portico_sdk::device::frames::{Head, Incoming, Span};
use portico_sdk::window::Window;
use portico_service::machine::{Interrupt, MachineDevice};
use portico_virtio::{Area, Device, DeviceError, Dma, Kind, Part, Queue, config::net};

/// Feature bits.
const MTU: u64 = 1 << 3;
const MAC: u64 = 1 << 5;
/// Queues.
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
/// Most buffers of a queue.
const BUFFERS: u16 = 128;
/// Fewest.
const MIN_BUFFERS: u16 = 8;
/// Bytes of a buffer.
const BUFFER: usize = 2048;
/// Where a frame is in its buffer, so that it is copied by words; the device's own header is right before it.
const FRAME: usize = 16;
/// Bytes of that header. (VIRTIO 1.2, "Device Operation", `struct virtio_net_hdr`)
const HEADER: usize = 12;
/// Bytes of a frame besides its payload: an Ethernet header, and a VLAN tag.
const OVERHEAD: usize = 18;
/// Payload of a frame if the device does not say.
const DEFAULT_MTU: usize = 1500;

/// A queue with a buffer for each descriptor.
#[derive(Debug)]
struct Ring {
    queue: Queue,
    buffers: Area,
}

impl Ring {
    fn new(device: &mut Device, index: u16, dma: &mut Dma) -> Option<Ring> {
        let size = device.max_queue(index).min(BUFFERS);
        if size < MIN_BUFFERS {
            return None;
        }
        let queue = Queue::new(dma, size, device.has_event_index())?;
        let buffers = dma.take(BUFFER * usize::from(size), 64)?;
        device.set_queue(index, &queue);
        Some(Ring { queue, buffers })
    }

    /// The buffer of the chain that is added next.
    fn next(&self) -> Option<Area> {
        self.buffer(self.queue.next_head()?)
    }

    fn buffer(&self, head: u16) -> Option<Area> {
        self.buffers.part(BUFFER * usize::from(head), BUFFER)
    }
}

/// The device.
#[derive(Debug)]
pub struct VirtioUplink {
    device: Device,
    receive: Ring,
    transmit: Ring,
    interrupt: Interrupt,
    longest: usize,
    /// The frame at the end of the receive queue: its buffer, and its length.
    waiting: Option<(u16, u32)>,
    /// Frames that were lost, since the device took none; that it received and that went nowhere.
    dropped: [u64; 2],
}

impl VirtioUplink {
    /// Resets and starts the device behind a transport, if it is one.
    ///
    /// # Errors
    /// Any of [`DeviceError`].
    pub fn open(device: &MachineDevice, dma: &mut Dma) -> Result<VirtioUplink, DeviceError> {
        let registers = device.registers.base as usize;
        // SAFETY: the manager mapped the registers for the life of the domain, and gave them to nobody else.
        let mut virtio = unsafe { Device::open(registers, Kind::Net, MAC | MTU) }?;
        let receive = Ring::new(&mut virtio, RECEIVE, dma).ok_or(DeviceError::Queue)?;
        let transmit = Ring::new(&mut virtio, TRANSMIT, dma).ok_or(DeviceError::Queue)?;
        virtio.start();
        let interrupt = Interrupt::bind(device.interrupt).map_err(|_| DeviceError::Queue)?;
        let mtu = if virtio.features() & MTU != 0 {
            usize::from(u16::from_le_bytes(virtio.config(net::MTU)))
        } else {
            DEFAULT_MTU
        };
        let longest = (mtu + OVERHEAD).min(BUFFER - FRAME);
        let mut uplink =
            VirtioUplink { device: virtio, receive, transmit, interrupt, longest, waiting: None, dropped: [0; 2] };
        while uplink.give_buffer().is_some() {}
        uplink.publish();
        uplink.disarm();
        Ok(uplink)
    }

    /// Gives the device a buffer to receive into.
    fn give_buffer(&mut self) -> Option<()> {
        let machine = self.receive.next()?.machine + (FRAME - HEADER) as u64;
        let part = Part { machine, bytes: (BUFFER - FRAME + HEADER) as u32, is_written: true };
        self.receive.queue.add(1, core::iter::once(part))?;
        Some(())
    }

    /// The frame at the end of the receive queue.
    fn next_received(&mut self) -> Option<Span> {
        if self.waiting.is_none() {
            self.waiting = self.receive.queue.pop();
        }
        let (head, written) = self.waiting?;
        let buffer = self.receive.buffer(head)?;
        // The device may say anything.
        let bytes = (written as usize).saturating_sub(HEADER).min(BUFFER - FRAME) as u32;
        Span::flat(buffer.window, FRAME, bytes)
    }

    /// Asks for an interrupt. `true`: nothing has come, and the caller may sleep. That frames were sent is looked at when there are more to send.
    pub fn arm(&mut self) -> bool {
        self.waiting.is_none() && self.receive.queue.arm(1)
    }

    /// Asks for no interrupts.
    pub fn disarm(&mut self) {
        self.receive.queue.disarm();
        self.transmit.queue.disarm();
    }
}

impl Uplink for VirtioUplink {
    fn is_ready(&mut self) -> bool {
        if self.interrupt.take() {
            self.device.acknowledge();
            self.interrupt.complete();
        }
        // Looked at in each turn: it is two loads.
        true
    }

    fn look_at(&mut self, frame: &mut Incoming) -> bool {
        self.next_received().and_then(|span| frame.set(span)).is_some()
    }

    fn take(&mut self) {
        self.waiting = None;
        // The buffer that was taken is the next free one.
        let _ = self.give_buffer();
    }

    fn put(&mut self, head: &Head, span: &Span) {
        let fill = |to: &Window, at: usize| head.write_to(to, at, span);
        self.send(span.len(), fill);
    }

    fn put_cut(&mut self, cut: &Cut, index: usize) {
        let bytes = cut.length(index);
        self.send(bytes, |to, at| cut.make(index, &Span::flat(*to, at, bytes as u32)?));
    }

    fn publish(&mut self) {
        for (index, ring) in [(RECEIVE, &mut self.receive), (TRANSMIT, &mut self.transmit)] {
            if ring.queue.publish() {
                self.device.notify(index);
            }
        }
    }

    fn longest(&self) -> usize {
        self.longest
    }

    fn count_dropped(&mut self, _: Reason) {
        let [_, nowhere] = &mut self.dropped;
        *nowhere += 1;
    }
}

impl VirtioUplink {
    /// Sends a frame of `bytes` bytes that `fill` writes to a place in a window, or loses it.
    fn send(&mut self, bytes: usize, fill: impl FnOnce(&Window, usize) -> Option<()>) {
        while self.transmit.queue.pop().is_some() {}
        let is_sent = bytes <= self.longest && self.try_send(bytes, fill).is_some();
        if !is_sent && let [lost, _] = &mut self.dropped {
            *lost += 1;
        }
    }

    fn try_send(&mut self, bytes: usize, fill: impl FnOnce(&Window, usize) -> Option<()>) -> Option<()> {
        let buffer = self.transmit.next()?;
        // No offloads: the header is all zero but the number of buffers, which a driver leaves at 0.
        buffer.window.store(0, 0)?;
        buffer.window.store(8, 0)?;
        fill(&buffer.window, FRAME)?;
        let machine = buffer.machine + (FRAME - HEADER) as u64;
        let part = Part { machine, bytes: (HEADER + bytes) as u32, is_written: false };
        self.transmit.queue.add(1, core::iter::once(part))?;
        Some(())
    }
}
