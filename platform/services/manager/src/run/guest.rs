//! A guest as the manager knows it, alive or not.

use alloc::string::String;
use alloc::vec::Vec;
use portico_abi::record::DomainStatus;
use portico_abi::{BLOCK_SIZE, Handle, PAGE_SIZE};
use portico_bundle::description::{Guest as Description, OnCrash, Service, ServiceKind};
use portico_manager::fdt::DeviceNode;
use portico_manager::memory::Piece;
use portico_manager::restart::{Policy, RestartState};
use portico_manager::watchdog::Watchdog;
use portico_sdk::hvc;

use crate::balloon::{Balloon, Kept};
use crate::console::Console;
use crate::control::{self, Control};
use crate::load::Load;

/// Shortest watchdog that a guest can ask for itself, in milliseconds.
const MIN_WATCHDOG_MS: u32 = 50;

/// First and longest wait before a service is built again, in nanoseconds.
const SERVICE_BACKOFF_NS: (u64, u64) = (1_000_000, 1_000_000_000);

/// What comes after a guest was destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Stay,
    /// It starts again at this time, in nanoseconds.
    StartAt(u64),
}

/// A request to end, to sleep, to wake, or to give a disk up.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What it was asked for, one of [`ask`](portico_abi::device::control::ask).
    pub what: u32,
    /// Until when it has time, in nanoseconds.
    pub until_ns: u64,
    /// That time, in seconds.
    pub seconds: u64,
    /// The disk that it is to give up.
    pub disk: String,
    /// When it is asked for that again, in nanoseconds.
    pub again_ns: u64,
}

/// Where a guest is in its life.
#[derive(Debug)]
pub enum State {
    /// It does not exist; its history does.
    Absent,
    /// It is to be built, at this time or as soon as there is memory.
    Due(u64),
    /// Its domain exists and is being filled.
    Loading(Load),
    /// It runs.
    Running,
    /// An operator paused it.
    Paused,
    /// It ended, and is kept for inspection.
    Preserved,
    /// Its domain is being taken down.
    Destroying(Next),
}

impl State {
    /// One word for the table.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Absent => "-",
            Self::Due(_) => "waiting",
            Self::Loading(_) => "loading",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Preserved => "crashed",
            Self::Destroying(_) => "ending",
        }
    }
}

/// A domain and what the manager gave it.
#[derive(Debug)]
pub struct Instance {
    /// The domain.
    pub domain: Handle,
    /// Its vCPUs, by index.
    pub vcpus: Vec<Handle>,
    /// Its RAM, in the order in which it is mapped.
    pub ram: Vec<Piece<Handle>>,
    /// Pages of RAM that it began with.
    pub memory_pages: u64,
    /// Its RAM once it has started, if that can change.
    pub balloon: Option<Balloon>,
    /// The guest's end of its console port.
    pub console_port: Handle,
    /// Nodes of its control page and, in a service, of devices of the machine.
    pub nodes: Vec<DeviceNode>,
    /// When its counter was 0, in nanoseconds.
    pub born_ns: u64,
    /// When it started, in nanoseconds.
    pub started_ns: u64,
    /// Watches its heartbeat.
    pub watchdog: Watchdog,
}

/// A guest.
#[derive(Debug)]
pub struct Guest {
    /// What it is to be.
    pub description: Description,
    /// An operator changed that.
    pub is_changed: bool,
    /// Its number in the system description, if it is from there.
    pub index: Option<u16>,
    /// Where it is in its life.
    pub state: State,
    /// How often it was restarted.
    pub restarts: RestartState,
    /// What exists of it.
    pub instance: Option<Instance>,
    /// What it serves, if it is a service.
    pub service: Option<ServiceKind>,
    /// Its control page, if it was built.
    pub control: Option<Control>,
    /// What is kept of its memory for the manager's next life, if that can or could change.
    pub kept: Option<Kept>,
    /// What it was asked to do, if it still lives.
    pub asked: Option<Asked>,
    /// Its console, if it has one.
    pub console: Option<Console>,
    /// How it last ended, in words.
    pub last_end: Option<String>,
}

/// A service as a guest: it is built and watched like one.
pub fn description_of(service: &Service) -> Description {
    Description {
        name: service.kind.name().into(),
        image: service.image.clone(),
        memory_pages: service.memory_pages,
        vcpus: 1,
        affinity: service.affinity,
        weight: service.weight,
        cap_permille: service.cap_permille,
        reservation: service.reservation,
        on_crash: OnCrash::Restart,
        restart: service.restart,
        autostart: true,
        ..Description::default()
    }
}

impl Guest {
    /// A guest that does not exist yet.
    pub fn new(description: Description, index: Option<u16>) -> Self {
        Self {
            description,
            is_changed: false,
            index,
            state: State::Absent,
            restarts: RestartState::default(),
            instance: None,
            service: None,
            control: None,
            kept: None,
            asked: None,
            console: None,
            last_end: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.description.name
    }

    /// Its restart policy. Guests wait for a service: it comes back at once.
    pub fn policy(&self) -> Policy {
        let policy = Policy::of(&self.description);
        match self.service {
            None => policy,
            Some(kind) => {
                // Without a console nobody could start it again.
                let limit = if kind == ServiceKind::Console { u32::MAX } else { policy.limit };
                let (backoff_first_ns, backoff_last_ns) = SERVICE_BACKOFF_NS;
                Policy { backoff_first_ns, backoff_last_ns, limit, ..policy }
            }
        }
    }

    /// Whether it exists, or is about to.
    pub fn is_alive(&self) -> bool {
        match self.state {
            State::Absent | State::Preserved => false,
            State::Due(_) | State::Loading(_) | State::Running | State::Paused | State::Destroying(_) => true,
        }
    }

    /// Its domain's status, if it has a domain.
    pub fn status(&self) -> Option<DomainStatus> {
        self.instance.as_ref().and_then(|instance| hvc::domain_status(instance.domain).ok())
    }
}

/// Bits of IPA that a domain with so much RAM needs.
pub fn ipa_bits(memory_pages: u64) -> u32 {
    let end = portico_abi::dt::RAM_BASE.saturating_add(memory_pages.saturating_mul(PAGE_SIZE));
    (u64::BITS - end.saturating_sub(1).leading_zeros()).clamp(32, 39)
}

/// Pages of EL2 memory that a domain needs: itself and its handle table, its vCPUs with their pages, and
/// tables for a RAM that is mapped by blocks. More is added if mapping asks for it.
pub fn budget_pages(description: &Description, memory_pages: u64, channel_pages: u64) -> u64 {
    const BASE: u64 = 12;
    const PER_VCPU: u64 = 3;
    let table_span = BLOCK_SIZE / PAGE_SIZE * 512;
    let ram = memory_pages.div_ceil(table_span).saturating_add(1);
    let windows = channel_pages.div_ceil(BLOCK_SIZE / PAGE_SIZE);
    BASE.saturating_add(PER_VCPU * u64::from(description.vcpus)).saturating_add(ram).saturating_add(windows)
}

impl Guest {
    /// Milliseconds within which its heartbeat must change: as described, or else as it asks itself. 0 for never.
    pub fn watchdog_ms(&self) -> u32 {
        let Some(control) = &self.control else { return 0 };
        if self.service.is_some() {
            return if control.is_ready() { control::PATIENCE_MS } else { control::START_PATIENCE_MS };
        }
        match self.description.watchdog_ms {
            0 => match control.watchdog_ms() {
                0 => 0,
                // The manager has to look as often.
                asked => asked.max(MIN_WATCHDOG_MS),
            },
            described => described,
        }
    }

    /// Whether it runs, and says that it sleeps.
    pub fn is_asleep(&self) -> bool {
        let control = self.control.as_ref().filter(|_| self.service.is_none() && matches!(self.state, State::Running));
        control.is_some_and(Control::is_asleep)
    }

    /// What it does, in a word for the table.
    pub fn word(&self) -> &'static str {
        if self.is_asleep() { "asleep" } else { self.state.word() }
    }

    /// What must change within that time.
    pub fn heartbeat(&self) -> u32 {
        self.control.as_ref().map_or(0, Control::beat)
    }

    /// When its heartbeat has to be looked at. A guest that asks for a watchdog itself is looked at now and then.
    pub fn watchdog_deadline(&self) -> Option<u64> {
        if !matches!(self.state, State::Running) {
            return None;
        }
        let limit_ms = self.watchdog_ms();
        let instance = self.instance.as_ref().filter(|_| limit_ms > 0)?;
        Some(instance.watchdog.deadline(limit_ms))
    }
}
