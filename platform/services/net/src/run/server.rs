//! The main loop: one thread, nothing is ever waited for but notifications.

use crate::uplink::VirtioUplink;
use alloc::vec::Vec;
use core::time::Duration;
use portico_abi::dt;
use portico_net::traffic::Traffic;
use portico_net::vif::{Settings, Vif};
use portico_sdk::device::Link;
use portico_sdk::{dtb, irq, println, time};
use portico_service::control::Control;
use portico_service::machine;

/// How the machine's device tree calls what it drives.
const VIRTIO: &str = "virtio,mmio";
/// Exit code of a service that was not started as one.
const NO_SERVICE: u64 = 1;
/// How often what was counted is shown.
const SHOW_EVERY: Duration = Duration::from_millis(50);

struct Server {
    control: Control,
    traffic: Traffic<VirtioUplink>,
    /// When what was counted is shown next, a value of CNTVCT_EL0.
    show_at: u64,
}

/// Serves, and does not end.
pub fn serve() -> u64 {
    // The loop polls; no handler is ever run.
    irq::mask();
    let Some(control) = Control::open() else {
        println!("the net service is started by the manager, not as a guest");
        return NO_SERVICE;
    };
    let nodes: Vec<_> = dtb::devices(dt::NET).collect();
    let mut interfaces = Vec::new();
    for node in &nodes {
        // SAFETY: the manager mapped the window for the life of the domain, and nothing else of the service is there.
        let link = unsafe { Link::new(node) };
        match (link, Settings::read(node)) {
            (Ok(link), Some(settings)) => interfaces.push((link, settings)),
            (Err(error), _) => println!("{}: interface {:?}: {error:?}", node.peer, node.name),
            (Ok(_), None) => println!("{}: interface {:?} has no address", node.peer, node.name),
        }
    }
    let uplink = open_uplink();
    if uplink.is_none() && interfaces.iter().any(|(_, settings)| settings.has_uplink) {
        println!("the machine has no network device that can be used: there is no uplink");
    }
    let traffic = Traffic::new(interfaces, uplink, |number, error| println!("interface {number}: {error:?}"));
    control.ready();
    Server { control, traffic, show_at: 0 }.run()
}

fn open_uplink() -> Option<VirtioUplink> {
    let mut dma = machine::dma()?;
    for device in machine::devices(VIRTIO) {
        match VirtioUplink::open(&device, &mut dma) {
            Ok(uplink) => return Some(uplink),
            Err(portico_virtio::DeviceError::Absent) => {}
            Err(error) => println!("a network device cannot be used: {error:?}"),
        }
    }
    None
}

impl Server {
    fn run(mut self) -> ! {
        loop {
            self.control.beat();
            if self.control.has_changed() {
                self.traffic.vifs().iter_mut().for_each(Vif::ports_have_changed);
            }
            if self.traffic.turn(time::now_ns) {
                self.traffic.bell().ring();
            } else {
                self.sleep();
            }
        }
    }

    /// Blocks until something happens. Whoever ran empty has been asked for a notification.
    fn sleep(&mut self) {
        if self.traffic.uplink().is_some_and(|uplink| !uplink.arm()) {
            self.traffic.bell().ring();
            return;
        }
        let mut deadline = self.control.deadline();
        if self.traffic.vifs().iter().any(Vif::is_unshown) {
            if time::passed(self.show_at) {
                self.show();
                self.show_at = time::deadline(SHOW_EVERY);
            } else {
                deadline = deadline.min(self.show_at);
            }
        }
        if let Some(due) = self.traffic.due() {
            let wait = due.saturating_sub(time::now_ns());
            deadline = deadline.min(time::now().saturating_add(time::Scale::read().ticks(wait)));
        }
        let _ = self.traffic.bell().wait(deadline);
        if let Some(uplink) = self.traffic.uplink() {
            uplink.disarm();
        }
    }

    fn show(&mut self) {
        for vif in self.traffic.vifs() {
            if let Some(counters) = vif.show() {
                self.control.count(vif.number(), &counters);
            }
        }
    }
}
