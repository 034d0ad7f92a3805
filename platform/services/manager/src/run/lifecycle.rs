//! Building guests, watching them end, taking them down.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use portico_abi::call::{config, run, sched};
use portico_abi::record::{DomainState, EndReason};
use portico_abi::{Handle, PAGE_SIZE, Status, dt};
use portico_bundle::description::{Guest as Description, MAX_ELASTIC_PAGES, OnCrash, ServiceKind};
use portico_console::layout;
use portico_console::message::Kind;
use portico_manager::fdt::{DeviceNode, Value};
use portico_manager::links::Purpose;
use portico_manager::memory::{BLOCK_PAGES, MemoryError, Piece};
use portico_manager::restart::{Decision, Ending};
use portico_manager::watchdog::Watchdog;
use portico_manager::{event, fdt, loader, table};
use portico_sdk::hvc::{self, Progress, Sched};
use portico_sdk::{entropy, time};

use crate::balloon::{Balloon, Kept};
use crate::console::Console;
use crate::control::{self, Control};
use crate::guest::{self, Guest, Instance, Next, State};
use crate::hv::{Calls, Machine};
use crate::load::{Bytes, Load, Put, Step};
use crate::supervisor::Manager;
use crate::{cookie, place};

/// Most guests that the manager knows, dead ones included.
pub const MAX_GUESTS: usize = layout::MAX_SOURCES;

/// Most RAM of a guest, in pages.
const MAX_PAGES: u64 = (place::FLOOR - dt::RAM_BASE) / PAGE_SIZE;

/// How long scrubbing is waited for before a guest that was refused something is tried again, in nanoseconds.
const SCRUB_NS: u64 = 100_000_000;

/// Why a guest could not be built.
enum Failure {
    /// Wait: memory is on its way back.
    NotYet,
    /// It cannot be.
    Because(String),
}

impl From<MemoryError> for Failure {
    fn from(error: MemoryError) -> Self {
        match error {
            MemoryError::Scrubbing => Self::NotYet,
            MemoryError::Exhausted { wanted, free } => {
                use portico_manager::table::pages;
                Self::Because(format!("it needs {} of memory, {} are free", pages(wanted), pages(free)))
            }
            MemoryError::Refused(status) => Self::from(("its memory", status)),
        }
    }
}

impl From<(&str, Status)> for Failure {
    fn from((what, status): (&str, Status)) -> Self {
        Self::Because(format!("{what}: {}", status.describe()))
    }
}

impl Manager {
    /// Adds a guest that does not exist yet. Returns its number.
    pub fn add_guest(&mut self, description: Description, index: Option<u16>) -> usize {
        self.guests.push(Guest::new(description, index));
        self.guests.len() - 1
    }

    /// Lets a guest start as soon as it can: one that is being taken down, when that is done.
    pub fn start(&mut self, id: usize, now: u64) {
        if let Some(guest) = self.guests.get_mut(id) {
            guest.restarts.reset();
            guest.last_end = None;
            guest.state = match guest.state {
                State::Destroying(_) => State::Destroying(Next::StartAt(now)),
                _ => State::Due(now),
            };
        }
        self.save();
    }

    /// Creates the domains of all guests that are due, so that their channels have both ends before the first starts.
    pub fn prepare_all(&mut self, now: u64) {
        for id in 0..self.guests.len() {
            if matches!(self.guests.get(id).map(|guest| &guest.state), Some(State::Due(_))) {
                self.try_prepare(id, now);
            }
        }
    }

    /// Does a piece of whatever each guest is going through. Returns whether there is more to do at once.
    pub fn step_guests(&mut self, now: u64) -> bool {
        let mut is_busy = false;
        // One at a time: they share the window, and start in order.
        let mut is_loading = self.guests.iter().any(|guest| matches!(guest.state, State::Loading(_)));
        for id in 0..self.guests.len() {
            let Some(guest) = self.guests.get(id) else { continue };
            match guest.state {
                State::Due(at) if now >= at => {
                    // One that was not prepared is being taken down: what there is of it must not run.
                    let is_prepared = guest.instance.is_some() || self.try_prepare(id, now);
                    if is_prepared && !is_loading {
                        is_loading = self.try_load(id);
                        is_busy |= is_loading;
                    }
                }
                State::Loading(_) => {
                    is_busy = true;
                    self.step_load(id, now);
                }
                State::Destroying(next) => is_busy |= self.step_destroy(id, next),
                _ => {}
            }
        }
        is_busy
    }

    /// Prepares a guest, or undoes what was done of that. Returns whether it is prepared.
    fn try_prepare(&mut self, id: usize, now: u64) -> bool {
        match self.prepare(id) {
            Ok(()) => return true,
            // Scrubbing keeps the loop busy; the next turn tries again.
            Err(Failure::NotYet) => self.unprepare(id, Next::StartAt(now)),
            // What was refused may be had when all memory is scrubbed: a block for EL2's pool, above all after the manager was begun anew.
            Err(Failure::Because(_)) if !self.is_memory_settled() => {
                self.unprepare(id, Next::StartAt(now.saturating_add(SCRUB_NS)));
            }
            Err(Failure::Because(why)) => self.fail(id, &why),
        }
        false
    }

    /// Whether no memory is on its way back: no guest is being taken down, nothing waits to be scrubbed.
    fn is_memory_settled(&self) -> bool {
        let is_going = |guest: &Guest| matches!(guest.state, State::Destroying(_));
        self.machine.memory_is_settled() && !self.guests.iter().any(is_going)
    }

    /// Creates a guest's domain with vCPUs, console and channels. Its memory is taken, not filled.
    fn prepare(&mut self, id: usize) -> Result<(), Failure> {
        let Some(guest) = self.guests.get(id) else { return Ok(()) };
        let description = guest.description.clone();
        let index = guest.index;
        if description.memory_pages > MAX_PAGES {
            return Err(Failure::Because(format!("a guest has at most {} of memory", table::pages(MAX_PAGES))));
        }
        if description.is_elastic() {
            let others = self.guests.iter().filter(|guest| guest.description.is_elastic());
            let in_use: u64 = others.filter_map(|guest| guest.instance.as_ref()).map(|other| other.memory_pages).sum();
            if in_use.saturating_add(description.memory_pages) > MAX_ELASTIC_PAGES {
                let all = table::pages(MAX_ELASTIC_PAGES);
                let why = format!("all guests whose memory can change have at most {all} together");
                return Err(Failure::Because(why));
            }
        }
        let is_settled = self.is_memory_settled();
        let ram = take_ram(&mut self.machine, &description, is_settled)?;
        let Some(guest) = self.guests.get_mut(id) else { return Ok(()) };
        let memory_pages = ram.iter().map(|piece| piece.pages).sum();
        let channel_pages = index.map_or(0, |index| self.channels.pages_of(index));
        let budget = guest::budget_pages(&description, memory_pages, channel_pages);
        let bits = guest::ipa_bits(memory_pages);
        let created = self.machine.create_domain(budget, u32::from(description.vcpus), bits, cookie::domain(id));
        let domain = match created {
            Ok(domain) => domain,
            Err(status) => {
                for piece in ram {
                    self.machine.memory.put_clean(&mut Calls, piece);
                }
                return Err(("its domain", status).into());
            }
        };
        guest.instance = Some(Instance {
            domain,
            vcpus: Vec::new(),
            ram,
            memory_pages,
            balloon: None,
            console_port: Handle::NONE,
            nodes: Vec::new(),
            born_ns: time::now_ns(),
            started_ns: 0,
            watchdog: Watchdog::new(0, 0),
        });
        self.configure(id, domain, &description).map_err(|status| Failure::from(("its vCPUs", status)))?;
        self.open_console(id, domain)?;
        self.open_control(id, domain)?;
        if let Some(index) = index {
            let guests = &self.guests;
            // Not one that is being destroyed: its next life makes the pair.
            let domain_of = |peer: u16| {
                let peer = guests.iter().find(|guest| guest.index == Some(peer))?;
                let instance = peer.instance.as_ref().filter(|_| !matches!(peer.state, State::Destroying(_)))?;
                Some(instance.domain)
            };
            let connected = self.channels.connect(&mut self.machine, index, domain, domain_of);
            let services = connected.map_err(|status| Failure::from(("its channels", status)))?;
            for service in services {
                let control = self.guests.iter().find(|guest| guest.index == Some(service));
                control.and_then(|guest| guest.control.as_ref()).inspect(|control| control.tell_changes());
            }
        }
        self.equip(id, domain)
    }

    /// Gives a service what only a service has.
    fn equip(&mut self, id: usize, domain: Handle) -> Result<(), Failure> {
        let Some(guest) = self.guests.get_mut(id) else { return Ok(()) };
        let (Some(kind), Some(number)) = (guest.service, guest.index) else { return Ok(()) };
        let dma_ipa = self.channels.end_in(number);
        let devices = self.devices.assign(&mut self.machine, kind, domain, dma_ipa);
        let nodes = devices.map_err(|status| Failure::from(("its devices", status)))?;
        if let Some(instance) = guest.instance.as_mut() {
            instance.nodes.extend(nodes);
        }
        if kind == ServiceKind::Console {
            let lent = self.lend_consoles(domain);
            lent.map_err(|status| Failure::from(("its windows", status)))?;
        }
        Ok(())
    }

    /// Gives an instance of the console service the windows and ports of all guests.
    fn lend_consoles(&mut self, domain: Handle) -> Result<(), Status> {
        self.desk.lend(&mut self.machine, domain)?;
        for console in self.guests.iter().filter_map(|guest| guest.console.as_ref()) {
            console.lend(&mut self.machine, domain)?;
            console.plug(&mut self.machine, domain)?;
        }
        Ok(())
    }

    fn configure(&mut self, id: usize, domain: Handle, description: &Description) -> Result<(), Status> {
        hvc::domain_name(domain, &description.name)?;
        hvc::domain_config(domain, config::INFO_PAGE_IPA, dt::INFO_PAGE)?;
        hvc::domain_config(domain, config::GICV_IPA, dt::GICV)?;
        let sched = sched_of(description);
        for vcpu in 0..description.vcpus {
            let page = dt::VCPU_PAGES + u64::from(vcpu) * PAGE_SIZE;
            let mpidr = fdt::mpidr(u64::from(vcpu));
            let cookie = cookie::vcpu(id, vcpu);
            let mut created = hvc::vcpu_create(domain, u32::from(vcpu), mpidr, page, cookie);
            if created == Err(Status::NoBudget) {
                self.machine.raise_budget(domain, 4)?;
                created = hvc::vcpu_create(domain, u32::from(vcpu), mpidr, page, cookie);
            }
            let handle = created?;
            if let Some(instance) = self.guests.get_mut(id).and_then(|guest| guest.instance.as_mut()) {
                instance.vcpus.push(handle);
            }
            hvc::vcpu_sched_set(handle, sched)?;
        }
        Ok(())
    }

    fn open_control(&mut self, id: usize, domain: Handle) -> Result<(), Failure> {
        let refused = |status| Failure::from(("its control page", status));
        let wall_at_zero_ns = self.clock.at_zero_ns();
        let Some(guest) = self.guests.get_mut(id) else { return Ok(()) };
        guest.asked = None;
        if guest.control.is_none() {
            let piece = self.machine.memory.take(&mut Calls, 1)?;
            guest.control = Some(Control::open(piece, id).map_err(refused)?);
        }
        let is_elastic = guest.service.is_none() && guest.description.is_elastic();
        if is_elastic && guest.kept.is_none() {
            guest.kept = Some(Kept::new(&mut self.machine, id).map_err(refused)?);
        }
        guest.kept.iter().for_each(Kept::clear);
        let is_heard = guest.service.is_some() || is_elastic;
        let (Some(control), Some(instance)) = (guest.control.as_mut(), guest.instance.as_mut()) else { return Ok(()) };
        let port = control.connect(&mut self.machine, domain, control::IPA, is_heard).map_err(refused)?;
        if let Some(at_zero_ns) = wall_at_zero_ns {
            control.set_wall(at_zero_ns.wrapping_add(instance.born_ns));
        }
        let properties = [(dt::PORT, Value::Word(port.raw())), (dt::SIDE, Value::Word(1))];
        instance.nodes.push(DeviceNode {
            node: "control",
            compatible: dt::CONTROL,
            ipa: control::IPA,
            size: PAGE_SIZE,
            properties: properties.into(),
        });
        Ok(())
    }

    fn open_console(&mut self, id: usize, domain: Handle) -> Result<(), Failure> {
        let refused = |status| Failure::from(("its console", status));
        // One that is being destroyed has nothing to do with it; its next life finds everything.
        let service = self.console_service().filter(|guest| !matches!(guest.state, State::Destroying(_)));
        let service = service.and_then(|guest| guest.instance.as_ref()).map(|instance| instance.domain);
        let Some(guest) = self.guests.get_mut(id) else { return Ok(()) };
        if !self.desk.is_open() || guest.service == Some(ServiceKind::Console) {
            return Ok(());
        }
        if guest.console.is_none() {
            let console = Console::open(&mut self.machine, id).map_err(refused)?;
            if let Some(service) = service {
                console.lend(&mut self.machine, service).map_err(refused)?;
            }
            let kind = if guest.service.is_some() { layout::SERVICE } else { layout::GUEST };
            self.desk.enter(id, &guest.description.name, kind);
            guest.console = Some(console);
        }
        let Some(console) = guest.console.as_mut() else { return Ok(()) };
        let port = console.connect(&mut self.machine, domain, dt::WINDOWS).map_err(refused)?;
        if let Some(service) = service {
            console.plug(&mut self.machine, service).map_err(refused)?;
        }
        if let Some(instance) = guest.instance.as_mut() {
            instance.console_port = port;
        }
        if let Some(control) = self.console_service().and_then(|guest| guest.control.as_ref()) {
            control.tell_changes();
        }
        Ok(())
    }

    /// Plans the loading of a prepared guest. Returns whether that begins now.
    fn try_load(&mut self, id: usize) -> bool {
        match self.plan(id) {
            Ok(Some(load)) => {
                if let Some(guest) = self.guests.get_mut(id) {
                    guest.state = State::Loading(load);
                }
                self.save();
                true
            }
            Ok(None) => false,
            Err(why) => {
                self.fail(id, &why);
                true
            }
        }
    }

    fn plan(&self, id: usize) -> Result<Option<Load>, String> {
        let Some(guest) = self.guests.get(id) else { return Ok(None) };
        let Some(instance) = guest.instance.as_ref() else { return Ok(None) };
        let description = &guest.description;
        let kernel = self.file(&description.image)?;
        let ramdisk = description.ramdisk.as_deref().map(|name| self.file(name)).transpose()?;
        let bytes = instance.memory_pages * PAGE_SIZE;
        let plan = loader::plan(kernel, ramdisk, dt::RAM_BASE, bytes).map_err(|error| error.to_string())?;
        let tree = self.tree(guest, instance, plan.ramdisk, bytes);
        if tree.len() as u64 > loader::DTB_BYTES {
            return Err(String::from("its device tree is too large: give it fewer channels or a shorter cmdline"));
        }
        let mut puts = Vec::new();
        for segment in &plan.segments {
            let end = segment.offset + segment.data.len() as u64;
            puts.push(Put { offset: segment.offset, bytes: Bytes::Bundle(segment.data) });
            puts.push(Put { offset: end, bytes: Bytes::Zero(segment.zero_bytes) });
        }
        puts.push(Put { offset: plan.dtb - dt::RAM_BASE, bytes: Bytes::Own(tree) });
        puts.retain(|put| !put.bytes.is_empty());
        Ok(Some(Load::new(puts, plan.entry, plan.dtb)))
    }

    /// A file of the bundle.
    pub fn file(&self, name: &str) -> Result<&'static [u8], String> {
        match self.bundle.find(name) {
            Ok(Some(entry)) => Ok(entry.data),
            Ok(None) => Err(format!("the bundle has no file {name}")),
            Err(error) => Err(format!("the bundle is damaged: {error}")),
        }
    }

    fn tree(&self, guest: &Guest, instance: &Instance, ramdisk: Option<(u64, u64)>, bytes: u64) -> Vec<u8> {
        let name_of =
            |index: u16| self.guests.iter().find(|guest| guest.index == Some(index)).map_or("", |guest| guest.name());
        let mpidrs: Vec<u64> = (0..u64::from(guest.description.vcpus)).map(fdt::mpidr).collect();
        let channels = guest.index.map(|index| {
            let plain = self.channels.of(index).filter(|(_, _, channel)| channel.link.purpose == Purpose::Channel);
            let nodes = plain.map(|(number, side, channel)| {
                let [a, b] = channel.link.sides;
                fdt::ChannelNode {
                    name: &channel.link.name,
                    peer: name_of(if side == 0 { b } else { a }),
                    cookie: crate::channels::cookie(number),
                    link: fdt::Link {
                        ipa: self.channels.ipa_in(index, number),
                        size: channel.link.pages * PAGE_SIZE,
                        port: channel.ports.get(side).map_or(0, |port| port.raw()),
                        side: side as u32,
                    },
                }
            });
            nodes.collect()
        });
        let mut devices = instance.nodes.clone();
        if let Some(index) = guest.index {
            devices.extend(self.channels.device_nodes(&self.machine, index, name_of));
        }
        let console = guest.console.as_ref().map(|_| fdt::Link {
            ipa: dt::WINDOWS,
            size: portico_abi::channel::console::WINDOW_BYTES as u64,
            port: instance.console_port.raw(),
            side: 1,
        });
        fdt::build(&fdt::Description {
            name: guest.name(),
            cmdline: &guest.description.cmdline,
            memory: (dt::RAM_BASE, bytes),
            mpidrs: &mpidrs,
            ramdisk,
            rng_seed: entropy::seed(),
            console,
            channels: channels.unwrap_or_default(),
            devices,
        })
    }

    fn step_load(&mut self, id: usize, now: u64) {
        let Some(guest) = self.guests.get_mut(id) else { return };
        let (State::Loading(load), Some(instance)) = (&mut guest.state, &mut guest.instance) else { return };
        match load.step(&instance.ram, instance.domain) {
            Ok(Step::More) => {}
            Ok(Step::NeedsBudget(pages)) => {
                if let Err(status) = self.machine.raise_budget(instance.domain, pages) {
                    self.fail(id, &format!("its page tables: {}", status.describe()));
                }
            }
            Ok(Step::Done) => {
                let (entry, dtb) = (load.entry, load.dtb);
                let first = instance.vcpus.first().copied().unwrap_or(Handle::NONE);
                instance.started_ns = now;
                instance.watchdog = Watchdog::new(0, now);
                if let (Some(kept), Some(control), true) = (guest.kept, &guest.control, guest.description.is_elastic())
                {
                    let ram = core::mem::take(&mut instance.ram);
                    let balloon = Balloon::new(kept, ram, guest.description.memory_min_pages);
                    balloon.show(control);
                    instance.balloon = Some(balloon);
                }
                let (begins, whole) = (instance.memory_pages, guest.description.memory_pages);
                match hvc::vcpu_start(first, entry, dtb) {
                    Ok(()) => {
                        guest.state = State::Running;
                        let name = String::from(guest.name());
                        self.save();
                        if begins < whole {
                            let [begins, whole] = [begins, whole].map(table::pages);
                            self.event(&format!(
                                "guest \"{name}\": begins with {begins} of {whole}, as no more is free"
                            ));
                        }
                    }
                    Err(status) => self.fail(id, &format!("its first vCPU: {}", status.describe())),
                }
            }
            Err(status) => {
                self.fail(id, &format!("its memory: {}", status.describe()));
            }
        }
    }

    /// Looks at every running guest for one that has ended.
    pub fn look_for_ended(&mut self, now: u64) {
        for id in 0..self.guests.len() {
            let Some(guest) = self.guests.get(id) else { continue };
            if !matches!(guest.state, State::Running | State::Paused) {
                continue;
            }
            let Some(status) = guest.status() else { continue };
            if status.state != DomainState::Ended as u32 {
                continue;
            }
            let is_fault = status.reason == EndReason::Fault as u32;
            let vcpu = guest.instance.as_ref().and_then(|instance| instance.vcpus.get(status.code as usize).copied());
            let fault = vcpu.filter(|_| is_fault).and_then(|vcpu| hvc::vcpu_fault_get(vcpu).ok());
            let text = event::describe(guest.name(), &status, fault.as_ref());
            self.ended(id, &text, event::ending(&status), now);
        }
    }

    /// Ends a guest whose heartbeat has stopped.
    pub fn check_watchdog(&mut self, id: usize, now: u64) {
        let Some(guest) = self.guests.get_mut(id).filter(|guest| matches!(guest.state, State::Running)) else { return };
        let (limit_ms, heartbeat, is_asleep) = (guest.watchdog_ms(), guest.heartbeat(), guest.is_asleep());
        let Some(instance) = guest.instance.as_mut() else { return };
        if is_asleep {
            // It counts from when it wakes.
            instance.watchdog = Watchdog::new(heartbeat, now);
            return;
        }
        if instance.watchdog.expired(heartbeat, limit_ms, now) {
            let text = format!("guest \"{}\": watchdog expired, no heartbeat for {limit_ms} ms", guest.name());
            if guest.description.on_crash == OnCrash::Preserve
                && let Some(instance) = guest.instance.as_ref()
            {
                let _ = hvc::domain_run(instance.domain, run::PAUSE);
            }
            self.ended(id, &text, Ending::Crash, now);
        }
    }

    /// Tells that a guest ended, and does what its policy says.
    fn ended(&mut self, id: usize, text: &str, ending: Ending, now: u64) {
        self.end_console(id);
        self.event(text);
        let Some(guest) = self.guests.get_mut(id) else { return };
        guest.last_end = Some(String::from(text));
        guest.asked = None;
        let mut policy = guest.policy();
        if let Some(ms) = self.options.backoff_ms {
            policy.backoff_first_ns = ms.saturating_mul(1_000_000);
            policy.backoff_last_ns = policy.backoff_first_ns;
        }
        let decision = guest.restarts.decide(&policy, ending, now);
        let name = String::from(guest.name());
        match decision {
            Decision::RestartAfter { delay_ns } => {
                self.event(&format!(
                    "guest \"{name}\": restarts in {} ms (restart {})",
                    delay_ns / 1_000_000,
                    self.guests.get(id).map_or(0, |guest| guest.restarts.total())
                ));
                self.destroy(id, Next::StartAt(now.saturating_add(delay_ns)));
            }
            Decision::GiveUp { restarts } => {
                self.event(&format!(
                    "guest \"{name}\": restarted {restarts} times in {} s, not again; `create {name}` starts it",
                    policy.window_ns / 1_000_000_000
                ));
                self.destroy(id, Next::Stay);
            }
            Decision::Destroy => self.destroy(id, Next::Stay),
            Decision::Preserve => {
                self.event(&format!("guest \"{name}\": kept for inspection; `info {name}`, `destroy {name}`"));
                guest_state(self, id, State::Preserved);
            }
        }
    }

    /// Begins to take a guest down.
    pub fn destroy(&mut self, id: usize, next: Next) {
        if let Some(guest) = self.guests.get(id)
            && let (State::Loading(load), Some(instance)) = (&guest.state, &guest.instance)
        {
            load.abandon(&instance.ram);
        }
        guest_state(self, id, State::Destroying(next));
        self.guests.get_mut(id).into_iter().for_each(|guest| guest.asked = None);
        if let Some(guest) = self.guests.get(id)
            && let (Some(instance), Some(index)) = (&guest.instance, guest.index)
        {
            // Refused if it has ended, and then needless.
            let _ = hvc::domain_run(instance.domain, run::PAUSE);
            self.channels.disconnect(index);
        }
    }

    /// Gives up on building a guest, and says why.
    fn fail(&mut self, id: usize, why: &str) {
        let name = self.guests.get(id).map(|guest| String::from(guest.name())).unwrap_or_default();
        let text = format!("guest \"{name}\": cannot start: {why}");
        self.event(&text);
        if let Some(guest) = self.guests.get_mut(id) {
            guest.last_end = Some(text);
            if guest.service == Some(ServiceKind::Console) {
                self.desk.give_up();
            }
        }
        self.unprepare(id, Next::Stay);
    }

    fn unprepare(&mut self, id: usize, next: Next) {
        let exists = self.guests.get(id).is_some_and(|guest| guest.instance.is_some());
        if exists {
            self.destroy(id, next);
        } else {
            self.gone(id, next);
        }
    }

    /// Does a piece of taking a guest down. Returns whether there is more.
    fn step_destroy(&mut self, id: usize, next: Next) -> bool {
        let Some(guest) = self.guests.get_mut(id) else { return false };
        let Some(instance) = guest.instance.as_ref() else {
            self.gone(id, next);
            return true;
        };
        match hvc::domain_destroy(instance.domain) {
            Ok(Progress::Again(_)) => return true,
            Ok(Progress::Done(_)) => {}
            Err(status) => {
                let text = format!("guest \"{}\": cannot be destroyed: {}", guest.name(), status.describe());
                self.event(&text);
            }
        }
        // What it wrote up to its end; an operator may have destroyed it while it was writing.
        self.end_console(id);
        if let Some(guest) = self.guests.get_mut(id) {
            if let Some(console) = guest.console.as_mut() {
                console.disconnect();
            }
            if let Some(control) = guest.control.as_mut() {
                control.disconnect();
            }
            // Its devices may still reach what was its own.
            let is_quiet = guest.service.is_none_or(|kind| self.devices.reset(kind));
            let name = String::from(guest.name());
            if let Some(instance) = guest.instance.take() {
                for handle in instance.vcpus.iter().copied().chain([instance.domain]) {
                    let _ = hvc::handle_close(handle);
                }
                for piece in instance.ram.into_iter().chain(instance.balloon.into_iter().flat_map(Balloon::into_pieces))
                {
                    if is_quiet {
                        self.machine.memory.put_dirty(piece);
                    } else {
                        self.machine.lose(piece);
                    }
                }
            }
            // What this life did not give it. While another service is taken down its memory is unmapped already and may yet be reached.
            let is_going = |other: &Guest| other.service.is_some() && matches!(other.state, State::Destroying(_));
            if self.guests.iter().filter(|other| is_going(other) && other.name() != name).count() == 0 {
                self.machine.reclaim(is_quiet);
            }
            if !is_quiet {
                self.event(&format!("service \"{name}\": a device does not stop; its memory is not used again"));
            }
        }
        if let Some(index) = self.guests.get(id).and_then(|guest| guest.index) {
            self.channels.disconnect(index);
        }
        self.gone(id, next);
        true
    }

    fn gone(&mut self, id: usize, next: Next) {
        let Some(guest) = self.guests.get_mut(id) else { return };
        match next {
            Next::StartAt(at) => guest.state = State::Due(at),
            Next::Stay => {
                guest.state = State::Absent;
                self.channels.release(&mut self.machine);
                self.desk.say(Kind::Gone, id, &[]);
            }
        }
        self.offer_memory();
        self.save();
    }
}

/// Takes RAM for a guest: of one whose memory can change by blocks, and fewer if there are not enough and no more is on its way back (`is_settled`).
fn take_ram(
    machine: &mut Machine,
    description: &Description,
    is_settled: bool,
) -> Result<Vec<Piece<Handle>>, MemoryError> {
    if !description.is_elastic() {
        return machine.memory.take_many(&mut Calls, description.memory_pages);
    }
    let taken = machine.memory.take_blocks(&mut Calls, description.memory_pages);
    let Err(MemoryError::Exhausted { .. }) = taken else { return taken };
    // For its whole life it has no more than it begins with.
    if !is_settled {
        return Err(MemoryError::Scrubbing);
    }
    // The smaller things that it needs come out of another one.
    let most = machine.memory.free_blocks().saturating_sub(1) * BLOCK_PAGES;
    if most < description.memory_min_pages { taken } else { machine.memory.take_blocks(&mut Calls, most) }
}

fn guest_state(manager: &mut Manager, id: usize, state: State) {
    if let Some(guest) = manager.guests.get_mut(id) {
        guest.state = state;
    }
    manager.save();
}

/// Scheduling as a description asks for it.
pub fn sched_of(description: &Description) -> Sched {
    let mut to = Sched {
        class: sched::WEIGHTED,
        weight: u64::from(description.weight.max(1)),
        cap_permille: u64::from(description.cap_permille),
        affinity: description.affinity,
        ..Sched::default()
    };
    if let Some(reservation) = description.reservation {
        to.class = sched::RESERVATION;
        to.period_ns = u64::from(reservation.period_us) * 1000;
        to.budget_ns = u64::from(reservation.budget_us) * 1000;
    }
    to
}
