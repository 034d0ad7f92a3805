//! vCPUs: register state, the page shared with the guest, and where it is in its life.
//!
//! A vCPU is its own pool page, [`Vcpu`] first. Who may touch what:
//! * the register context: the pCPU on which it is loaded, or the holder of its run-queue lock while it is neither running nor loaded;
//! * [`SchedState`]: the holder of the lock of the run queue that `pcpu` names;
//! * the atomics: anyone.

use core::cell::UnsafeCell;
use core::mem::{offset_of, size_of};
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::graph::{Graph, GraphCell, Ref};
use crate::object::domain::Domain;
use crate::object::extent;
use crate::object::handle::HandleChain;
use crate::sched::{MAX_VCPUS, control, queue};
use crate::{clock, memory};
use portico_abi::Status;
use portico_abi::call::sched as class;
use portico_abi::page::{RunState, VcpuPage};
use portico_abi::pending::HypervisorSide;
use portico_abi::record::{FaultRecord, VcpuState, VcpuStats};
use portico_arch::context::VcpuContext;
use portico_arch::{gic, timer};
use portico_core::runq::{Class, SchedEntity};
use portico_core::stage2::Attrs;

/// Where a vCPU is, as the scheduler sees it: its state in the ABI, and what is between two of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Place {
    /// Powered off, never started or turned off by its guest.
    Off = VcpuState::Off as u8,
    /// The current one of its pCPU.
    Running = VcpuState::Running as u8,
    /// In the run queue.
    Ready = VcpuState::Ready as u8,
    /// Waiting for an upcall or a deadline.
    Blocked = VcpuState::Blocked as u8,
    /// Waiting for the answer to a fault.
    Faulted = VcpuState::Faulted as u8,
    /// Stopped by a pause, `vcpu_stop` or the end of its domain; it is ready when that ends.
    Stopped = VcpuState::Stopped as u8,
    /// On its way from a pCPU that it may no longer use, in no queue.
    Migrating = 6,
}

impl Place {
    const fn from_raw(raw: u8) -> Self {
        match raw {
            1 => Self::Running,
            2 => Self::Ready,
            3 => Self::Blocked,
            4 => Self::Faulted,
            5 => Self::Stopped,
            6 => Self::Migrating,
            _ => Self::Off,
        }
    }
}

/// `loaded_on` of a vCPU whose registers are in memory.
pub const NOT_LOADED: u8 = 0xff;

/// Reasons for which a vCPU must not run; it may while none is set.
pub mod stop {
    /// `vcpu_stop`.
    pub const ASKED: u8 = 1 << 0;
    /// The domain is paused.
    pub const PAUSED: u8 = 1 << 1;
    /// The domain ended or is being destroyed.
    pub const ENDED: u8 = 1 << 2;
}

/// A vCPU.
#[repr(C, align(64))]
pub struct Vcpu {
    context: UnsafeCell<VcpuContext>,
    /// The domain.
    pub domain: Ref<Domain>,
    page: PagePtr,
    upcall_wanted: AtomicBool,
    place: AtomicU8,
    /// pCPU whose run queue and lock it belongs to.
    pub pcpu: AtomicU8,
    /// pCPU that holds its EL1 registers, or [`NOT_LOADED`].
    pub loaded_on: AtomicU8,
    /// Set of [`stop`] reasons.
    pub stop: AtomicU8,
    /// Index in its domain.
    pub index: u8,
    /// Number on the machine.
    pub id: u16,
    /// MPIDR_EL1 affinity fields.
    pub mpidr: u64,
    /// Calls made (counted on the paths that are not hot).
    pub calls: AtomicU64,
    sched: UnsafeCell<SchedState>,
    /// The last fault.
    pub fault: GraphCell<FaultRecord>,
    /// IPA of its page.
    pub page_ipa: u64,
    /// PSCI: powered on.
    pub powered: GraphCell<bool>,
    /// Its handles.
    pub handles: HandleChain,
}

// SAFETY: the `UnsafeCell`s follow the module's rules of access.
unsafe impl Sync for Vcpu {}

const _: () = assert!(size_of::<Vcpu>() <= 4096);

/// What the run-queue lock protects.
pub struct SchedState {
    /// Class, weight, budget: the run queue's own data.
    pub entity: SchedEntity,
    /// Physical-counter value at which `vcpu_block` times out; `u64::MAX` for never.
    pub block_deadline: u64,
    /// Physical-counter value at which its queue has to look at it while it is blocked: `block_deadline`, or its virtual timer's if that does
    /// not count in hardware and is earlier.
    pub look_at: u64,
    /// The block's result goes to x0.
    pub wants_result: bool,
    /// Counter at the last change of place.
    pub since: u64,
    /// Ticks in each place.
    pub running: u64,
    /// See `running`.
    pub ready: u64,
    /// See `running`.
    pub blocked: u64,
    /// Switches in.
    pub switches: u64,
    /// Allowed pCPUs.
    pub affinity: u64,
    /// Sequence number of the published times, even.
    pub seq: u32,
    /// `since` from which, and `ready` beyond which, the times are published again.
    publish_at: u64,
    publish_ready: u64,
}

impl SchedState {
    const fn new() -> Self {
        Self {
            entity: SchedEntity::new(),
            block_deadline: u64::MAX,
            look_at: u64::MAX,
            wants_result: false,
            since: 0,
            running: 0,
            ready: 0,
            blocked: 0,
            switches: 0,
            affinity: u64::MAX,
            seq: 0,
            publish_at: 0,
            publish_ready: 0,
        }
    }

    /// It stops running, having run for `ran` ticks.
    #[inline(always)]
    pub fn stopped(&mut self, ran: u64, now: u64) {
        self.running += ran;
        self.since = now;
    }

    /// It is blocked no longer.
    #[inline(always)]
    pub fn woken(&mut self, now: u64) {
        self.blocked += now.wrapping_sub(self.since);
        self.since = now;
        self.block_deadline = u64::MAX;
    }

    /// Sees to it that stolen time is published at the next entry if it has grown.
    #[inline(always)]
    pub fn note_ready(&mut self) {
        if self.ready > self.publish_ready {
            self.publish_at = 0;
        }
    }
}

/// MPIDR_EL1 bit 31, RES1.
const MPIDR_RES1: u64 = 1 << 31;

/// Makes vCPU `index` of a domain, off.
///
/// # Errors
/// `Limit`, `NoBudget`, `Invalid` or `Exists` for the page.
pub fn create(
    graph: &mut Graph,
    domain: Ref<Domain>,
    index: u8,
    mpidr: u64,
    page_ipa: u64,
) -> Result<Ref<Vcpu>, Status> {
    let id = (0..MAX_VCPUS as u16).find(|&id| queue::by_id(id).is_none()).ok_or(Status::Limit)?;
    let object = memory::alloc_page(graph, domain)?;
    let page = extent::map_new_page(graph, domain, page_ipa, Attrs::READ_WRITE)
        .inspect_err(|_| memory::free_page(graph, domain, object))?;
    let mut context = VcpuContext::at_power_on();
    context.el2.vmpidr_el2 = mpidr | MPIDR_RES1;
    context.el2.cntvoff_el2 = domain.counter_offset;
    let vcpu = Vcpu {
        context: UnsafeCell::new(context),
        domain,
        page: PagePtr(memory::pool_va(page).cast()),
        upcall_wanted: AtomicBool::new(false),
        place: AtomicU8::new(Place::Off as u8),
        pcpu: AtomicU8::new(control::choose_home()),
        loaded_on: AtomicU8::new(NOT_LOADED),
        stop: AtomicU8::new(0),
        index,
        id,
        mpidr,
        calls: AtomicU64::new(0),
        sched: UnsafeCell::new(SchedState::new()),
        fault: GraphCell::new(FaultRecord::default()),
        page_ipa,
        powered: GraphCell::new(false),
        handles: HandleChain::new(None),
    };
    let target = memory::pool_va(object).cast();
    // SAFETY: the page is fresh, aligned and large enough (asserted at the type); it is freed with its domain, after quiescence.
    let vcpu = unsafe {
        target.write(vcpu);
        Ref::new(target)
    };
    domain.set_vcpu(graph, index, vcpu.as_ptr());
    queue::register(id, vcpu.as_ptr());
    Ok(vcpu)
}

/// Takes a vCPU that is off, or will not run again, out of all tables. Its pages stay charged until the domain ends: another pCPU
/// may have seen it there.
pub fn unlink(graph: &mut Graph, vcpu: Ref<Vcpu>) {
    vcpu.domain.set_vcpu(graph, vcpu.index, null_mut());
    queue::register(vcpu.id, null_mut());
    control::forget(vcpu);
}

impl Vcpu {
    /// The vCPU whose context the vectors handed over.
    ///
    /// # Safety
    /// `context` is the one at the head of a live [`Vcpu`].
    #[inline(always)]
    pub unsafe fn from_context(context: *mut VcpuContext) -> Ref<Vcpu> {
        // SAFETY: the context is the first field, and not null by the contract.
        unsafe { Ref::new(NonNull::new_unchecked(context.cast())) }
    }

    /// The context's address.
    #[inline(always)]
    pub fn context_ptr(&self) -> *mut VcpuContext {
        self.context.get()
    }

    /// The register context.
    ///
    /// # Safety
    /// The caller is the pCPU on which it is loaded, or holds the run-queue lock while it is neither running nor loaded, and
    /// makes no second reference while this one lives.
    #[expect(clippy::mut_from_ref, reason = "the contract stands in for the borrow checker")]
    #[inline(always)]
    pub unsafe fn context(&self) -> &mut VcpuContext {
        // SAFETY: by the contract.
        unsafe { &mut *self.context.get() }
    }

    /// Scheduling state.
    ///
    /// # Safety
    /// The caller holds the lock of the run queue that `pcpu` names and makes no second reference while this one lives.
    #[expect(clippy::mut_from_ref, reason = "the contract stands in for the borrow checker")]
    #[inline(always)]
    pub unsafe fn sched(&self) -> &mut SchedState {
        // SAFETY: by the contract.
        unsafe { &mut *self.sched.get() }
    }

    /// Its page.
    #[inline(always)]
    pub fn page(&self) -> PagePtr {
        self.page
    }

    /// Where it is. A snapshot unless its run-queue lock is held.
    #[inline(always)]
    pub fn place(&self) -> Place {
        Place::from_raw(self.place.load(Ordering::Relaxed))
    }

    /// Whether that is `place`.
    #[inline(always)]
    pub fn is_at(&self, place: Place) -> bool {
        self.place.load(Ordering::Relaxed) == place as u8
    }

    /// Moves it; under its run-queue lock.
    #[inline(always)]
    pub fn set_place(&self, place: Place) {
        self.place.store(place as u8, Ordering::Relaxed);
    }

    /// Asks whoever enters it next to raise the upcall.
    #[inline(always)]
    pub fn set_upcall_wanted(&self) {
        self.upcall_wanted.store(true, Ordering::Relaxed);
    }

    /// Whether an upcall is wanted.
    #[inline(always)]
    pub fn upcall_wanted(&self) -> bool {
        self.upcall_wanted.load(Ordering::Relaxed)
    }

    /// Raises the upcall if it is wanted; the vCPU is loaded here.
    #[inline(always)]
    pub fn raise_wanted(&self) {
        // A plain load first: an exclusive access on each entry would cost more than the rare swap.
        if self.upcall_wanted() && self.upcall_wanted.swap(false, Ordering::AcqRel) {
            gic::pend_upcall();
        }
    }
}

impl Ref<Vcpu> {
    /// What is known of it: a consistent copy of what the run-queue lock protects, its times up to now.
    pub fn stats(self) -> VcpuStats {
        let (_home, _) = queue::lock_home(self);
        // SAFETY: the lock of its queue is held.
        let state = unsafe { self.sched() };
        let (rate, place) = (clock::rate(), self.place());
        let extra = timer::now().wrapping_sub(state.since);
        let ns = |ticks: u64, at: Place| rate.to_ns(if place == at { ticks.wrapping_add(extra) } else { ticks });
        let mut record = VcpuStats {
            state: if place == Place::Migrating { VcpuState::Ready as u32 } else { place as u32 },
            pcpu: u32::from(self.pcpu.load(Ordering::Relaxed)),
            running_ns: ns(state.running, Place::Running),
            ready_ns: ns(state.ready, Place::Ready),
            affinity: state.affinity,
            calls: self.calls.load(Ordering::Relaxed),
            switches: state.switches,
            missed: state.entity.missed(),
            ..VcpuStats::default()
        };
        match state.entity.class() {
            Class::Weighted { weight, cap_permille } => (record.weight, record.cap) = (weight, cap_permille),
            Class::Reservation { budget, period } => {
                record.class = class::RESERVATION as u32;
                (record.budget_ns, record.period_ns) = (rate.to_ns(budget), rate.to_ns(period));
            }
        }
        record
    }

    /// Writes run-state and stolen time to the pages that the guest sees; on the pCPU that has just loaded it.
    ///
    /// Stolen time is late by a 64th of a millisecond at most; the run-state times, which only a person reads, are written with it, or once a
    /// millisecond.
    pub fn publish_times(self) {
        if self.times_are_due() {
            // SAFETY: it runs on this pCPU, and nobody else changes these fields while it does.
            self.publish_now(unsafe { self.sched() });
        }
    }

    /// Whether [`Ref::publish_times`] would do something.
    #[inline(always)]
    pub fn times_are_due(self) -> bool {
        // SAFETY: as in `publish_times`.
        let state = unsafe { self.sched() };
        state.since >= state.publish_at
    }

    #[inline(never)]
    fn publish_now(self, state: &mut SchedState) {
        let rate = clock::rate();
        state.publish_at = state.since + rate.ticks_per_ms();
        state.publish_ready = state.ready + rate.ticks_per_ms() / 64;
        state.seq = state.seq.wrapping_add(2);
        let ready_ns = rate.to_ns(state.ready);
        let times = RunState {
            running_ns: rate.to_ns(state.running),
            ready_ns,
            blocked_ns: rate.to_ns(state.blocked),
            ..RunState::default()
        };
        self.page.write_run_state(&times, state.seq);
        let info = self.domain.info_page.load(Ordering::Acquire);
        if !info.is_null() {
            // SAFETY: the page lives as long as the domain, and only EL2 writes it.
            let all = unsafe { (&raw mut (*info).stolen).as_mut() };
            if let Some(record) = all.and_then(|all| all.get_mut(usize::from(self.index))) {
                // SAFETY: a field of the record above; volatile, since the guest reads it meanwhile.
                unsafe { (&raw mut record.stolen_ns).write_volatile(ready_ns) };
            }
        }
    }
}

/// EL2's view of a vCPU page: plain volatile stores and loads of single bytes, never a reference.
#[derive(Clone, Copy)]
pub struct PagePtr(NonNull<VcpuPage>);

// SAFETY: every access is a volatile access of a field that the ABI allows both sides to touch.
unsafe impl Send for PagePtr {}
// SAFETY: as above.
unsafe impl Sync for PagePtr {}

impl HypervisorSide for PagePtr {
    #[inline(always)]
    fn store(self, offset: usize, order: Ordering) {
        // SAFETY: the offset is within the page, which lives as long as the vCPU; the guest reaches the bytes by plain loads and stores.
        unsafe { AtomicU8::from_ptr(self.0.as_ptr().cast::<u8>().add(offset & 4095)) }.store(1, order);
    }

    #[inline(always)]
    fn is_set(self, offset: usize) -> bool {
        // SAFETY: as in `store`.
        unsafe { self.0.as_ptr().cast::<u8>().add(offset & 4095).read_volatile() != 0 }
    }
}

impl PagePtr {
    /// Reads `upcall_pending`.
    #[inline(always)]
    pub fn upcall_pending(self) -> bool {
        self.is_set(offset_of!(VcpuPage, upcall_pending))
    }

    /// Writes the run-state times, with `seq` odd meanwhile.
    pub fn write_run_state(self, state: &RunState, seq: u32) {
        // SAFETY: the field is within the page and written by EL2 alone, on the pCPU that switches the vCPU.
        unsafe {
            let target = &raw mut (*self.0.as_ptr()).run_state;
            (&raw mut (*target).seq).write_volatile(seq | 1);
            core::sync::atomic::fence(Ordering::Release);
            (&raw mut (*target).running_ns).write_volatile(state.running_ns);
            (&raw mut (*target).ready_ns).write_volatile(state.ready_ns);
            (&raw mut (*target).blocked_ns).write_volatile(state.blocked_ns);
            core::sync::atomic::fence(Ordering::Release);
            (&raw mut (*target).seq).write_volatile(seq.wrapping_add(2));
        }
    }

    /// Copies a record to the buffer, and puts its size and version into the words with which every record begins. It must be smaller than
    /// [`portico_abi::page::BUFFER_BYTES`] and without padding.
    pub fn write_buffer<T: Copy>(self, record: &T) {
        const { assert!(size_of::<T>() <= portico_abi::page::BUFFER_BYTES) };
        // SAFETY: the buffer is within the page; the records of the ABI have no padding (asserted there), so no byte
        // of EL2 goes out by it.
        unsafe {
            let buffer = &raw mut (*self.0.as_ptr()).buffer;
            buffer.cast::<T>().write_volatile(*record);
            buffer.cast::<[u32; 2]>().write_volatile([size_of::<T>() as u32, 1]);
        }
    }
}
