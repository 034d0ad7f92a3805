//! Domains: an address space, a budget, a handle table and vCPUs.
//!
//! A domain's number can be used again after its death, its `serial` never. Life: CREATED, RUNNABLE or PAUSED, ENDED, DYING.
//! Destruction is in [`destroy`].

pub mod destroy;

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::graph::{Graph, GraphCell, Link, Ref};
use crate::lock::Lock;
use crate::log::{self, Part};
use crate::object::extent::Extent;
use crate::object::handle::{HandleChain, HandleTable};
use crate::object::slab::Slab;
use crate::object::vcpu::{Vcpu, stop};
use crate::sched::control;
use crate::{memory, notify, root, trace};
use portico_abi::page::{InfoPage, MAX_VCPUS};
use portico_abi::port::BIT_EVENT;
use portico_abi::record::{DomainState, EndReason};
use portico_abi::{Rights, Status};
use portico_arch::mmu::Table;
use portico_arch::pcpu::MAX_PCPUS;
use portico_core::addr::{DomainId, Pa};
use portico_core::pool::{Budget, Owner};
use portico_core::ratelimit::TokenBucket;
use portico_core::trace::Event;

/// Stage-2 root of nobody: what an idle pCPU points at when its last guest must be forgotten.
pub fn empty_root() -> Pa {
    static EMPTY: Table = Table::new();
    portico_arch::mmu::image_pa(&raw const EMPTY as usize)
}

/// A domain.
#[repr(C, align(64))]
pub struct Domain {
    /// The handles that it has.
    pub table: HandleTable,
    /// VMID tag (see [`crate::vmid`]).
    pub vmid: AtomicU64,
    /// Index of the vCPU that each pCPU loaded last.
    pub last_here: [AtomicU8; MAX_PCPUS],
    /// Root table of stage 2.
    pub stage2_root: Pa,
    /// Number on the machine.
    pub id: DomainId,
    /// Never used again.
    pub serial: u32,
    /// Width of its IPA space.
    pub ipa_bits: u8,
    /// Limit on vCPUs.
    pub max_vcpus: u8,
    vcpus: [AtomicPtr<Vcpu>; MAX_VCPUS],
    state: AtomicU32,
    reason: AtomicU32,
    code: AtomicU64,
    /// Pages promised and used.
    pub budget: GraphCell<Budget>,
    /// Small objects on its budget.
    pub slab: Slab,
    /// Whom to tell when its state changes.
    pub watcher: GraphCell<Option<Ref<Domain>>>,
    /// First of the extents and grants mapped here.
    pub mapped: Link<Extent>,
    /// Pages mapped here.
    pub mapped_pages: GraphCell<u64>,
    /// Name, zero-padded, little-endian.
    pub name: GraphCell<u128>,
    /// The information page, once placed; null before. A switch reads it without the graph lock.
    pub info_page: AtomicPtr<InfoPage>,
    /// IPA of the information page.
    pub info_ipa: GraphCell<u64>,
    /// IPA of the GICv2 CPU interface.
    pub gicv_ipa: GraphCell<u64>,
    /// Faults stop the vCPU and wait for a reply, instead of ending the domain.
    pub faults_wait: GraphCell<bool>,
    /// Progress of its destruction.
    pub phase: GraphCell<destroy::Phase>,
    /// Lines it may write by `early_write`.
    pub early_lines: Lock<TokenBucket>,
    /// Virtual time: CNTVOFF_EL2 of its vCPUs.
    pub counter_offset: u64,
    /// Those by which it is named.
    pub handles: HandleChain,
}

const _: () = assert!(size_of::<Domain>() <= 4096);

/// Rights of the handle that a creator gets.
pub const OWNER_RIGHTS: Rights = Rights::INSPECT
    .union(Rights::COPY)
    .union(Rights::CREATE)
    .union(Rights::CONFIG)
    .union(Rights::RUN)
    .union(Rights::DESTROY)
    .union(Rights::FAULT)
    .union(Rights::SCHED);

/// What `domain_create` fixes.
pub struct DomainSpec {
    /// Budget in pages.
    pub budget_pages: u32,
    /// Limit on vCPUs, 1 to 48.
    pub max_vcpus: u8,
    /// Width of the IPA space, 32 to 39.
    pub ipa_bits: u8,
    /// Whom to tell of changes.
    pub watcher: Option<Ref<Domain>>,
}

/// Pages that a domain costs at once: itself and its stage-2 root.
const BASE_PAGES: u32 = 2;

/// The serial of the next domain.
static SERIAL: AtomicU32 = AtomicU32::new(1);

/// Creates a domain with a budget from the pool.
///
/// # Errors
/// `Invalid`, `NoBudget`, `Limit`.
pub fn create(graph: &mut Graph, spec: &DomainSpec) -> Result<Ref<Domain>, Status> {
    let vcpus_fit = (1..=MAX_VCPUS).contains(&usize::from(spec.max_vcpus));
    if !vcpus_fit || !(32..=39).contains(&spec.ipa_bits) {
        return Err(Status::Invalid);
    }
    if spec.budget_pages < BASE_PAGES {
        return Err(Status::NoBudget);
    }
    let slot = graph.domains.iter().position(Option::is_none).ok_or(Status::Limit)?;
    let id = DomainId::new(slot as u16);
    let mut budget = Budget::default();
    graph.pool.set_limit(&mut budget, spec.budget_pages)?;
    // The pool has promised the budget, so these two cannot fail.
    let object = memory::pool_va(graph.pool.alloc(Owner::EL2, &mut budget)?).cast::<Domain>();
    let root = graph.pool.alloc(Owner::domain(id), &mut budget)?;
    // SAFETY: the page is the new domain's alone.
    unsafe { portico_arch::cache::zero_page_to_poc(memory::pool_va(root).as_ptr()) };
    let domain = Domain {
        table: HandleTable::new(),
        vmid: AtomicU64::new(0),
        last_here: [const { AtomicU8::new(u8::MAX) }; MAX_PCPUS],
        stage2_root: root,
        id,
        serial: SERIAL.fetch_add(1, Ordering::Relaxed),
        ipa_bits: spec.ipa_bits,
        max_vcpus: spec.max_vcpus,
        vcpus: [const { AtomicPtr::new(null_mut()) }; MAX_VCPUS],
        state: AtomicU32::new(DomainState::Created as u32),
        reason: AtomicU32::new(EndReason::None as u32),
        code: AtomicU64::new(0),
        budget: GraphCell::new(budget),
        slab: Slab::new(),
        watcher: GraphCell::new(spec.watcher),
        mapped: Link::new(None),
        mapped_pages: GraphCell::new(0),
        name: GraphCell::new(0),
        info_page: AtomicPtr::new(null_mut()),
        info_ipa: GraphCell::new(0),
        gicv_ipa: GraphCell::new(0),
        faults_wait: GraphCell::new(false),
        phase: GraphCell::new(destroy::Phase::Stop),
        early_lines: Lock::new(TokenBucket::new()),
        counter_offset: portico_arch::timer::now(),
        handles: HandleChain::new(None),
    };
    // SAFETY: the page is free, aligned, large enough (asserted) and stays until `destroy` frees it after quiescence.
    let domain = unsafe {
        object.write(domain);
        Ref::new(object)
    };
    graph.domains[slot] = Some(domain);
    Ok(domain)
}

impl Domain {
    /// Its state.
    pub fn state(&self) -> DomainState {
        DomainState::from_raw(self.state.load(Ordering::Acquire)).unwrap_or(DomainState::Dying)
    }

    /// Why it ended, and the code.
    pub fn end(&self) -> (EndReason, u64) {
        let reason = EndReason::from_raw(self.reason.load(Ordering::Acquire)).unwrap_or(EndReason::None);
        (reason, self.code.load(Ordering::Relaxed))
    }

    /// Changes its state.
    pub fn set_state(&self, _graph: &mut Graph, state: DomainState) {
        self.state.store(state as u32, Ordering::Release);
        trace::record(Event::Domain, self.id.raw(), state as u16);
    }

    /// vCPU number `index`.
    #[inline]
    pub fn vcpu_at(&self, index: u64) -> Option<Ref<Vcpu>> {
        let pointer = self.vcpus.get(usize::try_from(index).ok()?)?.load(Ordering::Acquire);
        // SAFETY: made by `as_ptr`; taken out before the vCPU is freed.
        unsafe { Ref::from_ptr(pointer) }
    }

    /// All its vCPUs.
    pub fn vcpus(&self) -> impl Iterator<Item = Ref<Vcpu>> + '_ {
        (0..MAX_VCPUS as u64).filter_map(|index| self.vcpu_at(index))
    }

    /// Puts a vCPU into its table, or (with null) takes it out.
    pub fn set_vcpu(&self, _graph: &mut Graph, index: u8, vcpu: *mut Vcpu) {
        if let Some(entry) = self.vcpus.get(usize::from(index)) {
            entry.store(vcpu, Ordering::Release);
        }
    }

    /// Whether new uses of it are refused.
    pub fn is_dying(&self) -> bool {
        self.state() == DomainState::Dying
    }
}

/// Tells the watcher of a domain that its state changed.
pub fn tell_watcher(graph: &Graph, domain: Ref<Domain>) {
    if let Some(vcpu) = domain.watcher.get(graph).and_then(|watcher| watcher.vcpu_at(0)) {
        notify::pend(vcpu, BIT_EVENT);
    }
}

/// Ends a domain: its vCPUs stop, its memory and objects stay until it is destroyed. Only the first end counts.
///
/// The domain that EL2 built does not end but begins anew (see [`root::begin_again`]).
pub fn end(graph: &mut Graph, domain: Ref<Domain>, reason: EndReason, code: u64) {
    if matches!(domain.state(), DomainState::Ended | DomainState::Dying) {
        return;
    }
    domain.code.store(code, Ordering::Relaxed);
    domain.reason.store(reason as u32, Ordering::Release);
    if domain.watcher.get(graph).is_none() {
        if root::begin_again(graph, domain) {
            return;
        }
        let (name, reason) = (domain.name.get(graph).to_le_bytes(), Part::Decimal(reason as u64));
        log::line(&[Part::Name(&name), Part::Text(" ended: reason "), reason, Part::Text(", code "), Part::Hex(code)]);
    }
    domain.set_state(graph, DomainState::Ended);
    for vcpu in domain.vcpus() {
        control::stop(vcpu, stop::ENDED);
    }
    tell_watcher(graph, domain);
}
