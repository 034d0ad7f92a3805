//! The services of a system: domains that hold devices and lend them to guests.

use super::{MAX_CAP_PERMILLE, MAX_MEMORY_PAGES, Reservation, RestartLimit};
use crate::names::SERVICE_PREFIX;
use alloc::string::String;
use serde::{Deserialize, Serialize};

/// What a service serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ServiceKind {
    /// Disks.
    Block,
    /// Network interfaces.
    Net,
    /// Consoles.
    Console,
}

impl ServiceKind {
    /// Every kind.
    pub const ALL: [ServiceKind; 3] = [ServiceKind::Block, ServiceKind::Net, ServiceKind::Console];

    /// Its name: the table of a description, and what follows `service/` in a bundle.
    pub const fn name(self) -> &'static str {
        match self {
            ServiceKind::Block => "block",
            ServiceKind::Net => "net",
            ServiceKind::Console => "console",
        }
    }
}

/// A service. A system has at most one of each kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// What it serves.
    pub kind: ServiceKind,
    /// Bundle entry of its image, `service/...`.
    pub image: String,
    /// Its RAM, in pages of 4 KiB.
    pub memory_pages: u64,
    /// Mask of the pCPUs on which it may run; 0 for all.
    pub affinity: u64,
    /// Share of processor time relative to others, 1 to 65535.
    pub weight: u16,
    /// Most processor time, in thousandths of one pCPU; 0 for no limit.
    pub cap_permille: u32,
    /// If present, it has this reservation and `weight` is not used.
    pub reservation: Option<Reservation>,
    /// The operator accepts that a device of this service can reach all of memory.
    pub trusted_dma: bool,
    /// How often it may be restarted.
    pub restart: RestartLimit,
}

impl Service {
    /// The first rule of its fields that it breaks.
    pub(super) fn broken_rule(&self) -> Option<&'static str> {
        let named = self.image.strip_prefix(SERVICE_PREFIX).is_some_and(|name| !name.is_empty());
        let reservation = self.reservation.is_none_or(|r| r.budget_us > 0 && r.budget_us <= r.period_us);
        let rules = [
            (named, "image of a service is not an entry of services"),
            ((1..=MAX_MEMORY_PAGES).contains(&self.memory_pages), "memory of a service out of range"),
            (self.weight > 0, "weight of a service out of range"),
            (self.cap_permille <= MAX_CAP_PERMILLE, "cap of a service out of range"),
            (reservation, "reservation of a service out of range"),
        ];
        rules.into_iter().find_map(|(holds, text)| (!holds).then_some(text))
    }
}
