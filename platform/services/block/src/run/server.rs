//! The main loop: one thread, nothing is ever waited for but notifications.

use crate::disk::Disk;
use crate::queue::GuestQueue;
use crate::sd::SdCard;
use crate::virtio::VirtioDisk;
use alloc::vec::Vec;
use portico_abi::dt;
use portico_block::claims::Claims;
use portico_sdk::doorbell::Doorbell;
use portico_sdk::{dtb, irq, println, time};
use portico_service::control::Control;
use portico_service::machine;

/// How the machine's device tree calls what it drives.
const VIRTIO: &str = "virtio,mmio";
const SD: &str = "brcm,bcm2711-emmc2";
/// Exit code of a service that was not started as one.
const NO_SERVICE: u64 = 1;
/// Answers taken from one disk in a turn.
const PER_TURN: usize = 256;

struct Server {
    control: Control,
    disks: Vec<Disk>,
    queues: Vec<GuestQueue>,
    /// A queue has limits of rate.
    is_limited: bool,
    /// The queue that is looked at first in the next turn: another in each.
    first: usize,
    /// For each disk, the queue that found it full. Until that queue has got its room no other takes any: one who wants much would
    /// else wait for ever behind many who want little.
    stuck: Vec<Option<usize>>,
    bell: Doorbell,
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
    let queues = open_queues(&mut disks);
    control.ready();
    let is_limited = queues.iter().any(GuestQueue::is_limited);
    let stuck = disks.iter().map(|_| None).collect();
    Server { control, disks, queues, is_limited, first: 0, stuck, bell: Doorbell::new() }.run()
}

fn open_queues(disks: &mut [Disk]) -> Vec<GuestQueue> {
    let mut queues: Vec<GuestQueue> = Vec::new();
    let mut claims = Claims::default();
    // The queues of a disk stand one behind the other, the first of them first.
    let mut first = 0;
    for node in dtb::devices(dt::BLOCK) {
        let is_first = node.number(dt::QUEUE).unwrap_or(0) == 0;
        match GuestQueue::new(&node, disks, &mut claims) {
            Ok((mut queue, why)) => {
                if is_first {
                    first = queues.len();
                    why.inspect(|why| println!("{}: disk {:?}: refused: {why}", node.peer, node.name));
                } else if let Some(other) = queues.get(first) {
                    queue.share_rate(other);
                }
                queues.push(queue);
            }
            Err(error) => println!("{}: disk {:?}: {error:?}", node.peer, node.name),
        }
    }
    queues
}

fn open_disks() -> Vec<Disk> {
    let mut disks = Vec::new();
    if let Some(mut dma) = machine::dma() {
        for device in machine::devices(VIRTIO) {
            match VirtioDisk::open(&device, &mut dma) {
                Ok(disk) => disks.push(disk.into()),
                Err(portico_virtio::DeviceError::Absent) => {}
                Err(error) => println!("a disk cannot be used: {error:?}"),
            }
        }
    }
    for device in machine::devices(SD) {
        match SdCard::open(&device) {
            Ok(card) => disks.push(card.into()),
            Err(error) => println!("the SD card cannot be used: {error:?}"),
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
            // No longer than for one turn more.
            let is_owing = self.bell.is_owing();
            if !self.turn() {
                self.sleep();
            } else if is_owing {
                self.bell.ring();
            }
        }
    }

    /// Looks at everything once. Returns whether there is more to do at once; what comes later notifies, or shows when interrupts are asked for.
    fn turn(&mut self) -> bool {
        let mut has_more = false;
        for disk in &mut self.disks {
            disk.take_interrupt();
            let mut left = PER_TURN;
            while left > 0
                && let Some((tag, status)) = disk.pop()
            {
                left -= 1;
                if let Some(queue) = self.queues.get_mut(tag.queue as usize) {
                    queue.done(&tag, status);
                }
            }
            has_more |= left == 0;
        }
        let now_ns = if self.is_limited { time::now_ns() } else { 0 };
        let count = self.queues.len();
        self.first = if self.first + 1 < count { self.first + 1 } else { 0 };
        for number in (self.first..count).chain(0..self.first) {
            has_more |= self.turn_of(number, now_ns);
        }
        for disk in &mut self.disks {
            has_more |= disk.publish();
        }
        for queue in &mut self.queues {
            queue.publish(&mut self.bell);
        }
        has_more
    }

    #[inline]
    fn turn_of(&mut self, number: usize, now_ns: u64) -> bool {
        let Some(queue) = self.queues.get_mut(number) else { return false };
        let mut nobody = None;
        let stuck = queue.disk().and_then(|disk| self.stuck.get_mut(disk)).unwrap_or(&mut nobody);
        if stuck.is_some_and(|stuck| stuck != number) {
            return false;
        }
        let has_more = queue.turn(number as u32, &mut self.disks, now_ns);
        let before = core::mem::replace(stuck, queue.is_stuck().then_some(number));
        // Others had to stand back.
        has_more | (before.is_some() & stuck.is_none())
    }

    /// Blocks until something happens. Queues of guests have asked for notifications when they ran empty.
    fn sleep(&mut self) {
        // No earlier than the guests want to hear of it, so that what ends together is told together.
        let waiting = self.queues.iter().filter(|queue| queue.is_waiting_for_disk());
        let patience = waiting.map(GuestQueue::patience).min().unwrap_or(1);
        if !self.disks.iter_mut().all(|disk| disk.arm(patience)) {
            self.bell.ring();
            return;
        }
        let due = self.queues.iter().filter_map(GuestQueue::due).min();
        let due = due.map(|at| {
            let wait = at.saturating_sub(time::now_ns());
            time::now().saturating_add(time::Scale::read().ticks(wait))
        });
        let deadline = self.control.deadline();
        let _ = self.bell.wait(due.map_or(deadline, |due| due.min(deadline)));
        self.disks.iter_mut().for_each(Disk::disarm);
    }
}
