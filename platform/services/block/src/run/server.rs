//! The main loop: one thread, nothing is ever waited for but notifications.

use crate::queue::GuestQueue;
use crate::virtio::VirtioDisk;
use alloc::vec::Vec;
use portico_abi::dt;
use portico_sdk::{dtb, irq, port, println, time};
use portico_service::control::Control;
use portico_service::machine;

/// How the machine's device tree calls what it drives.
const VIRTIO: &str = "virtio,mmio";
/// Exit code of a service that was not started as one.
const NO_SERVICE: u64 = 1;
/// Answers taken from one disk in a turn.
const PER_TURN: usize = 256;

struct Server {
    control: Control,
    disks: Vec<VirtioDisk>,
    queues: Vec<GuestQueue>,
    /// A queue has limits of rate.
    is_limited: bool,
}

/// Serves, and does not end.
pub fn serve() -> u64 {
    // The loop polls; no handler is ever run.
    irq::mask();
    let Some(control) = Control::open() else {
        println!("the block service is started by the manager, not as a guest");
        return NO_SERVICE;
    };
    let mut disks = open_disks();
    let mut queues = Vec::new();
    for node in dtb::devices(dt::BLOCK) {
        match GuestQueue::new(&node, &mut disks) {
            Ok(queue) => {
                if !queue.has_disk() {
                    let name = node.text(dt::service::DISK).unwrap_or("?");
                    println!(
                        "{}: disk {:?}: the machine has no {name:?}, or not that part of it",
                        node.peer, node.name
                    );
                }
                queues.push(queue);
            }
            Err(error) => println!("{}: disk {:?}: {error:?}", node.peer, node.name),
        }
    }
    control.ready();
    let is_limited = queues.iter().any(GuestQueue::is_limited);
    Server { control, disks, queues, is_limited }.run()
}

fn open_disks() -> Vec<VirtioDisk> {
    let mut disks = Vec::new();
    let Some(mut dma) = machine::dma() else { return disks };
    for device in machine::devices(VIRTIO) {
        match VirtioDisk::open(&device, &mut dma) {
            Ok(disk) => disks.push(disk),
            Err(portico_virtio::DeviceError::Absent) => {}
            Err(error) => println!("a disk cannot be used: {error:?}"),
        }
    }
    disks
}

impl Server {
    fn run(mut self) -> ! {
        loop {
            if self.control.beat() {
                for (index, queue) in self.queues.iter().enumerate() {
                    self.control.count(index, &queue.counters);
                }
            }
            if self.control.has_changed() {
                self.queues.iter_mut().for_each(GuestQueue::ports_have_changed);
            }
            if !self.turn() {
                self.sleep();
            }
        }
    }

    /// Looks at everything once. Returns whether anything was done.
    fn turn(&mut self) -> bool {
        let mut is_busy = false;
        for disk in &mut self.disks {
            disk.take_interrupt();
            for _ in 0..PER_TURN {
                let Some((tag, status)) = disk.pop() else { break };
                is_busy = true;
                if let Some(queue) = self.queues.get_mut(tag.queue as usize) {
                    queue.done(&tag, status);
                }
            }
        }
        let now_ns = if self.is_limited { time::now_ns() } else { 0 };
        for (number, queue) in (0..).zip(&mut self.queues) {
            is_busy |= queue.turn(number, &mut self.disks, now_ns);
        }
        for disk in &mut self.disks {
            disk.publish();
        }
        for queue in &mut self.queues {
            queue.publish();
        }
        is_busy
    }

    /// Blocks until something happens. Queues of guests have asked for notifications when they ran empty.
    fn sleep(&mut self) {
        // No earlier than the guests want to hear of it, so that what ends together is told together.
        let waiting = self.queues.iter().filter(|queue| queue.is_waiting_for_disk());
        let patience = waiting.map(GuestQueue::patience).min().unwrap_or(1);
        if !self.disks.iter_mut().all(|disk| disk.arm(patience)) {
            return;
        }
        let due = self.queues.iter().filter_map(GuestQueue::due).min();
        let due = due.map(|at| {
            let wait = at.saturating_sub(time::now_ns());
            time::now().saturating_add(time::Scale::read().ticks(wait))
        });
        let deadline = self.control.deadline();
        let _ = port::wait(due.map_or(deadline, |due| due.min(deadline)));
        self.disks.iter_mut().for_each(VirtioDisk::disarm);
    }
}
