//! Creating a guest's domain, with all but the contents of its memory.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use portico_abi::call::{config, sched};
use portico_abi::{Handle, PAGE_SIZE, Status, dt};
use portico_bundle::description::{Guest as Description, MAX_ELASTIC_PAGES, ServiceKind};
use portico_console::layout;
use portico_manager::fdt::{self, DeviceNode, Value};
use portico_manager::memory::{BLOCK_PAGES, MemoryError, Piece};
use portico_manager::table;
use portico_manager::watchdog::Watchdog;
use portico_sdk::hvc::{self, Sched};
use portico_sdk::time;

use crate::balloon::Kept;
use crate::console::Console;
use crate::control::{self, Control};
use crate::guest::{self, Guest, Instance, Next, State};
use crate::hv::{Calls, Machine};
use crate::supervisor::Manager;
use crate::{cookie, place};

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
    /// Prepares a guest, or undoes what was done of that. Returns whether it is prepared.
    pub(super) fn try_prepare(&mut self, id: usize, now: u64) -> bool {
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
