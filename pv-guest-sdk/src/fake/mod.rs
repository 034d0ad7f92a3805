//! A hypervisor for `cargo test`: guest code runs on a host, its calls end here.
//!
//! ```
//! use portico_sdk::{fake::Machine, println, time};
//! use core::time::Duration;
//!
//! let machine = Machine::start();
//! let exit = machine.run(|| {
//!     time::sleep(Duration::from_secs(3600));
//!     println!("an hour later");
//!     7
//! });
//! assert_eq!((exit.code, machine.output().as_str()), (7, "an hour later\n"));
//! ```
//!
//! One domain with one vCPU, a console and channels. Time is virtual: it moves a little at each look and jumps when the guest
//! blocks, so tests are fast and repeatable. A peer is a closure that runs when the guest blocks ([`Machine::on_block`]),
//! and uses the other side of a channel ([`Machine::peer`]). A guest that blocks with nobody to wake it is a
//! failed test, not a hang. Calls that the fake does not know answer `NotSupported`, or what [`Machine::on_call`] says.
//!
//! What it is not: an oracle for the ABI (that is the conformance guest), nor a model of concurrency (those are the
//! loom tests). Only one machine exists at a time in a process: tests that start one wait for each other.

mod calls;
mod tree;

use crate::channel::{Channel, ChannelError};
use crate::device::{DeviceError, Link};
use crate::dtb::{ChannelNode, Range};
use crate::pipe::{Consumer, Pipe, Producer};
use crate::window::Window;
use crate::{console, control, dtb, irq, port, time, vcpu};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use portico_abi::channel::ChannelHeader;
use portico_abi::channel::console::WINDOW_BYTES;
use portico_abi::device::{BACK, FRONT};
use portico_abi::page::{InfoPage, VcpuPage};
use portico_abi::{Call, Handle, dt};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Frequency of the fake's counter: a tick is a nanosecond.
pub const COUNTER_HZ: u32 = 1_000_000_000;
/// Ticks that pass at each look at the counter.
const TICKS_PER_LOOK: u64 = 100;
/// The vCPU index by whose page the peers are notified.
const OUTSIDE: u32 = 47;

/// Held by the machine that exists.
static ONE_MACHINE: Mutex<()> = Mutex::new(());
static WORLD: Mutex<Option<World>> = Mutex::new(None);
static MASKED: AtomicBool = AtomicBool::new(true);

/// Answers a call in place of the fake: gets the arguments, gives x0..x3.
pub type CallHook = Box<dyn FnMut([u64; 6]) -> [u64; 4] + Send>;
type BlockHook = Box<dyn FnMut() + Send>;

/// Memory that the guest sees at its host address, and that stays where it is.
struct Block(Box<[u64]>);

impl Block {
    fn new(bytes: usize) -> Block {
        Block(vec![0; bytes.div_ceil(8)].into_boxed_slice())
    }

    fn window(&mut self) -> Window {
        let address = self.0.as_mut_ptr().expose_provenance() as u64;
        // SAFETY: the world keeps the block as long as the machine exists, and reaches it by windows only.
        match unsafe { Window::new(address, self.0.len() * 8) } {
            Some(window) => window,
            None => unreachable!("a heap block is aligned"),
        }
    }
}

struct PortEnd {
    /// 0 for none.
    cookie: u64,
    peer: usize,
    bound: Option<(u32, u16)>,
    notified: bool,
    gone: bool,
}

struct World {
    pages: [Window; 2],
    info: Window,
    console_out: Consumer,
    console_in: Producer,
    console_port: Handle,
    ports: Vec<PortEnd>,
    channels: Vec<ChannelNode>,
    ticks: u64,
    timer: Option<u64>,
    output: Vec<u8>,
    exit: Option<Exit>,
    hooks: HashMap<u32, CallHook>,
    on_block: Vec<BlockHook>,
    calls: u64,
    _memory: Vec<Block>,
}

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// One of [`portico_abi::call::exit`].
    pub kind: u64,
    /// Its code.
    pub code: u64,
}

/// Thrown by the call that ends the guest, and caught by [`Machine::run`].
struct Ended;

/// Memory to test with that is never given back, all zero.
pub fn window(bytes: usize) -> Window {
    let memory = vec![0_u64; bytes.div_ceil(8)].leak();
    // SAFETY: leaked, and reached by the window only.
    match unsafe { Window::new(memory.as_mut_ptr().expose_provenance() as u64, bytes) } {
        Some(window) => window,
        None => unreachable!("words are aligned"),
    }
}

fn world() -> MutexGuard<'static, Option<World>> {
    WORLD.lock().unwrap_or_else(PoisonError::into_inner)
}

fn with<T>(body: impl FnOnce(&mut World) -> T) -> T {
    match world().as_mut() {
        Some(world) => body(world),
        None => panic!("guest code runs without a machine: begin the test with `Machine::start()`"),
    }
}

/// What a machine is to have.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    bootargs: String,
    channels: Vec<(String, usize)>,
    devices: Vec<(&'static str, String, usize)>,
    no_console: bool,
}

impl Builder {
    /// Sets the boot arguments.
    #[must_use]
    pub fn bootargs(mut self, text: &str) -> Self {
        self.bootargs = text.into();
        self
    }

    /// Adds a channel with a window of `pages` pages; the guest is side 1.
    #[must_use]
    pub fn channel(mut self, name: &str, pages: usize) -> Self {
        self.channels.push((name.into(), pages));
        self
    }

    /// Adds a device ([`portico_abi::dt::BLOCK`], [`portico_abi::dt::NET`]) with a window of `pages` pages in all. Its back-end
    /// is the test, by [`Machine::back_end`].
    #[must_use]
    pub fn device(mut self, compatible: &'static str, name: &str, pages: usize) -> Self {
        self.devices.push((compatible, name.into(), pages));
        self
    }

    /// Gives it no console channel: output goes through `early_write`.
    #[must_use]
    pub fn no_console(mut self) -> Self {
        self.no_console = true;
        self
    }

    /// Starts it.
    pub fn start(self) -> Machine {
        let one = ONE_MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        interrupts::mask();
        let mut memory = Vec::new();
        let mut window = |bytes: usize| {
            let mut block = Block::new(bytes);
            let window = block.window();
            memory.push(block);
            window
        };
        let pages = [window(size_of::<VcpuPage>()), window(size_of::<VcpuPage>())];
        let info = window(size_of::<InfoPage>());
        let console = window(WINDOW_BYTES);
        let mut ports = Vec::new();
        let mut channels = vec![channel_node("", console, &mut ports)];
        for (name, pages) in &self.channels {
            channels.push(channel_node(String::leak(name.clone()), window(pages * 4096), &mut ports));
        }
        let mut devices = Vec::new();
        for (number, (compatible, name, pages)) in self.devices.iter().enumerate() {
            let mut node = channel_node(String::leak(name.clone()), window(pages * 4096), &mut ports);
            node.cookie = cookie_of(number, FRONT);
            if let Some([.., front, back]) = ports.get_mut(..) {
                (front.cookie, back.cookie) = (node.cookie, cookie_of(number, BACK));
            }
            devices.push((*compatible, node));
        }
        write_info(info);
        let blob: &'static [u8] = Vec::leak(tree::write(&self.bootargs, &channels, &devices, self.no_console));
        let (Some(out), Some(input)) = (Pipe::console_out(console), Pipe::console_in(console)) else {
            unreachable!("the window has the size of a console")
        };
        *world() = Some(World {
            pages,
            info,
            console_out: Consumer::new(out),
            console_in: Producer::new(input),
            console_port: calls::handle_of(1),
            ports,
            channels: channels.split_off(1),
            ticks: 0,
            timer: None,
            output: Vec::new(),
            exit: None,
            hooks: HashMap::new(),
            on_block: Vec::new(),
            calls: 0,
            _memory: memory,
        });
        port::reset();
        console::reset();
        control::reset();
        // SAFETY: the only vCPU of the domain, and the page of the world outside.
        unsafe {
            vcpu::init(OUTSIDE);
            vcpu::init(0);
        }
        // SAFETY: leaked above.
        unsafe { dtb::init(blob.as_ptr()) };
        time::init();
        irq::init();
        console::init();
        control::init();
        crate::log::init();
        irq::unmask();
        Machine { _one: one }
    }
}

/// Cookie of the ports of a device's end.
fn cookie_of(device: usize, side: u32) -> u64 {
    (device as u64 + 1) << 8 | u64::from(side)
}

/// Makes a window with a header and a pair of ports: the guest's end gets the even slot, the peer's the odd one.
fn channel_node(name: &'static str, window: Window, ports: &mut Vec<PortEnd>) -> ChannelNode {
    for (offset, value) in [(0, ChannelHeader::MAGIC), (4, 1), (8, window.len() as u32)] {
        if let Some(word) = window.word(offset) {
            word.store(value, Ordering::Release);
        }
    }
    let slot = ports.len();
    calls::add_pair(ports);
    let range = Range { base: window.address(), len: window.len() as u64 };
    ChannelNode { name, peer: "peer", window: range, port: calls::handle_of(slot), cookie: 0, side: 1 }
}

fn write_info(info: Window) {
    let scale = time::Scale::from_hz(COUNTER_HZ);
    let fields = [
        (core::mem::offset_of!(InfoPage, magic), InfoPage::MAGIC),
        (core::mem::offset_of!(InfoPage, version), 1),
        (core::mem::offset_of!(InfoPage, counter_hz), scale.hz),
        (core::mem::offset_of!(InfoPage, mult), scale.mult),
        (core::mem::offset_of!(InfoPage, shift), scale.shift),
    ];
    for (offset, value) in fields {
        if let Some(word) = info.word(offset) {
            word.store(value, Ordering::Release);
        }
    }
}

/// The machine that the test's guest runs on. Dropping it ends it.
pub struct Machine {
    _one: MutexGuard<'static, ()>,
}

impl Machine {
    /// Starts a machine with a console and nothing else.
    pub fn start() -> Machine {
        Builder::default().start()
    }

    /// Describes a machine with more than that.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Runs a guest to its end: until it returns or makes `self_exit`.
    ///
    /// # Panics
    /// If the guest panics, which fails the test; on the target it would end the domain.
    pub fn run(&self, guest: impl FnOnce() -> u64) -> Exit {
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(guest)) {
            Ok(code) => Exit { kind: portico_abi::call::exit::EXIT, code },
            Err(thrown) if thrown.is::<Ended>() => with(|world| world.exit).unwrap_or(Exit { kind: u64::MAX, code: 0 }),
            Err(thrown) => std::panic::resume_unwind(thrown),
        }
    }

    /// Everything printed so far.
    pub fn output(&self) -> String {
        with(|world| {
            world.drain();
            String::from_utf8_lossy(&world.output).into_owned()
        })
    }

    /// Types on the console. Returns how many bytes there was room for.
    pub fn type_in(&self, text: &str) -> usize {
        let (count, handle) = with(|world| (world.console_in.write(text.as_bytes()), world.console_port));
        let _ = crate::hvc::port_notify(handle);
        count.unwrap_or(0)
    }

    /// The peer's side (side 0) of a channel. Only calls that do not wait may be used on it.
    ///
    /// # Errors
    /// `NotFound` if the machine has no such channel.
    pub fn peer(&self, name: &str) -> Result<Channel, ChannelError> {
        let mut node = with(|world| world.channels.iter().find(|node| node.name == name).copied())
            .ok_or(ChannelError::NotFound)?;
        node.side = 0;
        node.port = Handle::from_raw(node.port.raw() + 1);
        // SAFETY: the world keeps the window.
        unsafe { Channel::open_node_on(&node, OUTSIDE) }
    }

    /// The back-end's side of a device.
    ///
    /// # Errors
    /// `NotFound` if the machine has no such device.
    pub fn back_end(&self, name: &str) -> Result<Link, DeviceError> {
        let nodes = [dt::BLOCK, dt::NET].into_iter().flat_map(dtb::devices);
        let mut node = nodes.into_iter().find(|node| node.name == name).ok_or(DeviceError::NotFound)?;
        (node.side, node.cookie) = (BACK, node.cookie - u64::from(FRONT) + u64::from(BACK));
        // SAFETY: the world keeps the window.
        Ok(unsafe { Link::new(&node) }?.on_vcpu(OUTSIDE))
    }

    /// Gives a device's ends a new pair of ports, as if the domain at `side` had ended and begun again: what the other end holds notifies nobody.
    ///
    /// # Errors
    /// `NotFound` if the machine has no such device.
    pub fn replug(&self, name: &str) -> Result<(), DeviceError> {
        let nodes = [dt::BLOCK, dt::NET].into_iter().flat_map(dtb::devices);
        let node = nodes.into_iter().find(|node| node.name == name).ok_or(DeviceError::NotFound)?;
        with(|world| {
            let cookies = [node.cookie, node.cookie - u64::from(FRONT) + u64::from(BACK)];
            for end in world.ports.iter_mut().filter(|end| cookies.contains(&end.cookie)) {
                end.gone = true;
            }
            calls::add_pair(&mut world.ports);
            if let Some([.., front, back]) = world.ports.get_mut(..) {
                (front.cookie, back.cookie) = cookies.into();
            }
        });
        Ok(())
    }

    /// Adds a closure that runs, with interrupts masked, each time the guest blocks: the world outside.
    pub fn on_block(&self, hook: impl FnMut() + Send + 'static) {
        with(|world| world.on_block.push(Box::new(hook)));
    }

    /// Answers a call in place of the fake.
    pub fn on_call(&self, call: Call, hook: impl FnMut([u64; 6]) -> [u64; 4] + Send + 'static) {
        with(|world| world.hooks.insert(call as u32, Box::new(hook)));
    }

    /// Makes the peer of a channel vanish: notifications to it fail.
    pub fn lose_peer(&self, name: &str) {
        with(|world| {
            if let Some(node) = world.channels.iter().find(|node| node.name == name)
                && let Some(end) = world.ports.get_mut(calls::slot_of(node.port))
            {
                end.gone = true;
            }
        });
    }

    /// Time since the start, as the guest sees it.
    pub fn elapsed(&self) -> Duration {
        with(|world| Duration::from_nanos(world.ticks))
    }

    /// Calls made so far.
    pub fn calls(&self) -> u64 {
        with(|world| world.calls)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        console::reset();
        control::reset();
        *world() = None;
    }
}

impl World {
    /// Takes what the guest printed. A guest that breaks the pipe loses it.
    fn drain(&mut self) {
        let mut bytes = [0; 256];
        loop {
            match self.console_out.read(&mut bytes) {
                Ok(0) => return,
                Ok(count) => self.output.extend(bytes.iter().take(count)),
                Err(_) => self.console_out.resynchronize(),
            }
        }
    }

    fn advance_to(&mut self, ticks: u64) {
        self.ticks = self.ticks.max(ticks);
        if self.timer.is_some_and(|at| at <= self.ticks) {
            self.timer = None;
            self.pend(0, portico_abi::port::BIT_TIMER);
        }
    }
}

/// The counter; a little later each time.
pub(crate) fn now() -> u64 {
    let ticks = with(|world| {
        world.advance_to(world.ticks + TICKS_PER_LOOK);
        world.ticks
    });
    interrupts::deliver();
    ticks
}

pub(crate) fn arm_timer(deadline: Option<u64>) {
    with(|world| {
        world.timer = deadline;
        world.advance_to(world.ticks);
    });
    interrupts::deliver();
}

/// Makes a call.
pub(crate) fn call(function: u64, arguments: [u64; 6]) -> [u64; 4] {
    let answer = calls::call(function, arguments);
    interrupts::deliver();
    answer
}

/// Ends the guest's thread of control after `self_exit`.
pub(crate) fn ended() -> ! {
    if cfg!(panic = "unwind") {
        std::panic::resume_unwind(Box::new(Ended))
    }
    let (output, exit) = with(|world| {
        world.drain();
        (core::mem::take(&mut world.output), world.exit)
    });
    print!("{}", String::from_utf8_lossy(&output));
    std::process::exit(exit.map_or(1, |exit| (exit.code & 0xff) as i32))
}

/// The interrupt mask of the fake vCPU.
pub(crate) mod interrupts {
    use super::{MASKED, with};
    use core::sync::atomic::Ordering;

    pub fn mask() -> u64 {
        u64::from(MASKED.swap(true, Ordering::SeqCst))
    }

    pub fn means_masked(before: u64) -> bool {
        before != 0
    }

    pub fn restore(before: u64) {
        if before == 0 {
            unmask();
        }
    }

    pub fn unmask() {
        MASKED.store(false, Ordering::SeqCst);
        deliver();
    }

    pub fn is_masked() -> bool {
        MASKED.load(Ordering::SeqCst)
    }

    pub fn wait() {
        let _ = super::calls::block(u64::MAX);
        deliver();
    }

    /// Takes the upcall if it is pending and not masked.
    pub fn deliver() {
        if is_masked() || !super::world().is_some() || !with(|world| world.upcall_is_pending(0)) {
            return;
        }
        MASKED.store(true, Ordering::SeqCst);
        crate::irq::upcall();
        MASKED.store(false, Ordering::SeqCst);
    }
}
