//! Calls to the hypervisor: one typed function for each call of the ABI.
//!
//! [`raw`] makes a call by register; the functions below it name and type the arguments. None of them
//! allocates or takes a lock, so all can be used in an interrupt or panic handler. What each call does
//! and which statuses it has is documented in `ABI.md` and at [`portico_abi::call::Call`].
//!
//! Restartable calls return [`Progress`]; [`complete`] repeats one until it is done.
//!
//! On a host the call layer is replaced by [`crate::fake`].

use portico_abi::record::{DomainStatus, FaultRecord, FaultVerb, PcpuStats, RegisterId, SystemStats, VcpuStats};
use portico_abi::{Call, Handle, Rights, Status};

/// What a restartable call did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All is done; the value is the call's result.
    Done(u64),
    /// A piece is done: call again with the same arguments. The value says how far it got.
    Again(u64),
}

/// Makes a call by registers: function id in w0, `arguments` in x1..x6. Returns x0..x3.
#[cfg(target_os = "none")]
#[inline(always)]
pub fn raw(function: u64, arguments: [u64; 6]) -> [u64; 4] {
    let [a1, a2, a3, a4, a5, a6] = arguments;
    let (r0, r1, r2, r3): (u64, u64, u64, u64);
    // SAFETY: the ABI lets a call change x0 to x3 and memory that the caller gave to it, nothing else.
    unsafe {
        core::arch::asm!(
            "hvc #0",
            inlateout("x0") function => r0,
            inlateout("x1") a1 => r1,
            inlateout("x2") a2 => r2,
            inlateout("x3") a3 => r3,
            in("x4") a4,
            in("x5") a5,
            in("x6") a6,
            options(nostack),
        );
    }
    [r0, r1, r2, r3]
}

/// Makes a call by registers, to the fake hypervisor.
#[cfg(not(target_os = "none"))]
pub fn raw(function: u64, arguments: [u64; 6]) -> [u64; 4] {
    crate::fake::call(function, arguments)
}

/// Makes a call of the ABI and decodes its status.
///
/// # Errors
/// Every status but `Ok` and `Again`; a status that this version does not know is `NotSupported`.
#[inline(always)]
pub fn call(call: Call, arguments: [u64; 6]) -> Result<[u64; 3], Status> {
    let [status, r1, r2, r3] = raw(u64::from(call.function_id()), arguments);
    if status == 0 {
        return Ok([r1, r2, r3]);
    }
    Err(Status::from_raw(status.cast_signed()).unwrap_or(Status::NotSupported))
}

/// Makes a restartable call once.
///
/// # Errors
/// As [`call`], but `Again` is not an error.
#[inline]
pub fn call_piece(call: Call, arguments: [u64; 6]) -> Result<Progress, Status> {
    let [status, r1, _, _] = raw(u64::from(call.function_id()), arguments);
    match Status::from_raw(status.cast_signed()) {
        Some(Status::Ok) => Ok(Progress::Done(r1)),
        Some(Status::Again) => Ok(Progress::Again(r1)),
        Some(error) => Err(error),
        None => Err(Status::NotSupported),
    }
}

/// Repeats a restartable call until it is done, and returns its result.
///
/// # Errors
/// The first error of the call.
pub fn complete(mut piece: impl FnMut() -> Result<Progress, Status>) -> Result<u64, Status> {
    loop {
        if let Progress::Done(value) = piece()? {
            return Ok(value);
        }
    }
}

fn unit(which: Call, arguments: [u64; 6]) -> Result<(), Status> {
    call(which, arguments).map(|_| ())
}

fn value(which: Call, arguments: [u64; 6]) -> Result<u64, Status> {
    call(which, arguments).map(|[r1, _, _]| r1)
}

fn handle(which: Call, arguments: [u64; 6]) -> Result<Handle, Status> {
    value(which, arguments).map(from_register)
}

/// Takes a handle out of a register.
fn from_register(register: u64) -> Handle {
    Handle::from_raw((register & 0xffff_ffff) as u32)
}

fn h(handle: Handle) -> u64 {
    u64::from(handle.raw())
}

// ----- about the ABI and oneself -----

/// Version (major << 16 | minor), features and management version. See [`portico_abi::call::features`].
///
/// # Errors
/// `NotSupported` where there is no Portico.
pub fn abi_features(page: u64) -> Result<(u64, u64, u64), Status> {
    call(Call::AbiFeatures, [page, 0, 0, 0, 0, 0]).map(|[a, b, c]| (a, b, c))
}

/// A fact about the caller; `key` is one of [`portico_abi::call::info`].
///
/// # Errors
/// `NotFound` for an unknown key, or one that does not apply.
pub fn self_info(key: u64, index: u64) -> Result<u64, Status> {
    value(Call::SelfInfo, [key, index, 0, 0, 0, 0])
}

/// Writes up to 40 bytes to the hypervisor's log. Longer input is cut.
///
/// # Errors
/// `RateLimited` if the caller writes too fast; `Invalid` for no bytes.
pub fn early_write(bytes: &[u8]) -> Result<(), Status> {
    let bytes = bytes.get(..40).unwrap_or(bytes);
    let mut words = [0_u64; 5];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks(8)) {
        let mut raw = [0_u8; 8];
        for (to, from) in raw.iter_mut().zip(chunk) {
            *to = *from;
        }
        *word = u64::from_le_bytes(raw);
    }
    let [w0, w1, w2, w3, w4] = words;
    unit(Call::EarlyWrite, [bytes.len() as u64, w0, w1, w2, w3, w4])
}

/// Ends the calling domain; `kind` is one of [`portico_abi::call::exit`].
pub fn self_exit(kind: u64, code: u64) -> ! {
    let _ = raw(u64::from(Call::SelfExit.function_id()), [kind, code, 0, 0, 0, 0]);
    crate::exit::halted()
}

// ----- handles -----

/// What [`handle_info`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandleInfo {
    /// Type of the object; `None` for one that this version does not know.
    pub object: Option<portico_abi::ObjectType>,
    /// Rights of the handle.
    pub rights: Rights,
    /// The holder's cookie.
    pub cookie: u64,
    /// State, depending on the type.
    pub state: u64,
}

fn kind_of(kind: u64) -> (Option<portico_abi::ObjectType>, Rights) {
    let object = portico_abi::ObjectType::from_raw((kind & 0xff) as u8);
    (object, Rights::from_bits_truncate((kind >> 16 & 0xffff) as u16))
}

/// What a handle names.
///
/// # Errors
/// `BadHandle`.
pub fn handle_info(of: Handle) -> Result<HandleInfo, Status> {
    call(Call::HandleInfo, [h(of), 0, 0, 0, 0, 0]).map(|[kind, cookie, state]| {
        let (object, rights) = kind_of(kind);
        HandleInfo { object, rights, cookie, state }
    })
}

/// The next live handle of `domain` from `cursor` on, and the cursor after it.
///
/// # Errors
/// `NotFound` at the end; see `ABI.md` for the others.
pub fn handle_next(domain: Handle, cursor: u64) -> Result<(Handle, u64), Status> {
    call(Call::HandleNext, [h(domain), cursor, 0, 0, 0, 0]).map(|[next, cursor, _]| (from_register(next), cursor))
}

/// Copies a handle into `domain`'s table; the result is a handle in *that* table.
///
/// # Errors
/// `NoRights` if `rights` is not a subset, `NoBudget` if the table cannot grow.
pub fn handle_copy(of: Handle, domain: Handle, rights: Rights, cookie: u64) -> Result<Handle, Status> {
    handle(Call::HandleCopy, [h(of), h(domain), u64::from(rights.bits()), cookie, 0, 0])
}

/// Closes a handle.
///
/// # Errors
/// `BadHandle`; `BadState` for the last handle of a live object.
pub fn handle_close(of: Handle) -> Result<(), Status> {
    unit(Call::HandleClose, [h(of), 0, 0, 0, 0, 0])
}

// ----- ports -----

/// Notifies the other end of a port.
///
/// # Errors
/// `BadHandle`, `WrongType`, `NoRights`, `PeerGone`.
#[inline]
pub fn port_notify(port: Handle) -> Result<(), Status> {
    unit(Call::PortNotify, [h(port), 0, 0, 0, 0, 0])
}

/// Notifies the other end and blocks, in one trap. `deadline` is a value of CNTVCT_EL0.
///
/// # Errors
/// As [`port_notify`] (then it did not block), and `TimedOut`.
#[inline]
pub fn port_notify_wait(port: Handle, deadline: u64) -> Result<(), Status> {
    unit(Call::PortNotifyWait, [h(port), deadline, 0, 0, 0, 0])
}

/// Makes a pair of linked ports, one in each domain's table.
///
/// # Errors
/// See `ABI.md`.
pub fn port_pair_create(a: Handle, b: Handle, cookie_a: u64, cookie_b: u64) -> Result<(Handle, Handle), Status> {
    call(Call::PortPairCreate, [h(a), h(b), cookie_a, cookie_b, 0, 0])
        .map(|[a, b, _]| (from_register(a), from_register(b)))
}

/// Binds a port to bit `bit` of the caller's vCPU `vcpu`.
///
/// # Errors
/// `Invalid` for a bit that is reserved or out of range, `NotFound` if there is no such vCPU.
pub fn port_bind(port: Handle, vcpu: u32, bit: u16) -> Result<(), Status> {
    unit(Call::PortBind, [h(port), u64::from(vcpu), u64::from(bit), portico_abi::port::CLASS_DEFAULT, 0, 0])
}

/// Unbinds a port.
///
/// # Errors
/// `BadState` if it is not bound.
pub fn port_unbind(port: Handle) -> Result<(), Status> {
    unit(Call::PortUnbind, [h(port), 0, 0, 0, 0, 0])
}

// ----- one's own vCPU -----

/// Blocks until `upcall_pending` is set or CNTVCT_EL0 reaches `deadline`.
///
/// # Errors
/// `TimedOut`.
#[inline]
pub fn vcpu_block(deadline: u64) -> Result<(), Status> {
    unit(Call::VcpuBlock, [deadline, 0, 0, 0, 0, 0])
}

/// Gives up the rest of the time slice.
#[inline]
pub fn vcpu_yield() {
    let _ = call(Call::VcpuYield, [0; 6]);
}

/// Says that a level-triggered device interrupt was handled.
///
/// # Errors
/// `BadState` if it was not active.
pub fn irq_complete(irq: Handle) -> Result<(), Status> {
    unit(Call::IrqComplete, [h(irq), 0, 0, 0, 0, 0])
}

// ----- domains -----

/// Creates a domain with `budget` pages for its objects.
///
/// # Errors
/// `NoBudget` if the pool lacks pages, `Invalid` for arguments out of range.
pub fn domain_create(budget: u64, max_vcpus: u32, ipa_bits: u32, cookie: u64) -> Result<Handle, Status> {
    handle(Call::DomainCreate, [budget, u64::from(max_vcpus), u64::from(ipa_bits), 0, cookie, 0])
}

/// Sets a property; `key` is one of [`portico_abi::call::config`].
///
/// # Errors
/// `BadState` after the start, for keys that are fixed then.
pub fn domain_config(domain: Handle, key: u64, value: u64) -> Result<(), Status> {
    unit(Call::DomainConfig, [h(domain), key, value, 0, 0, 0])
}

/// Sets the name by which EL2 prints a domain. At most 16 bytes; more are cut.
///
/// # Errors
/// As [`domain_config`].
pub fn domain_name(domain: Handle, name: &str) -> Result<(), Status> {
    let mut raw = [0_u8; 16];
    for (to, from) in raw.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    let both = u128::from_le_bytes(raw);
    domain_config(domain, portico_abi::call::config::NAME_LO, both as u64)?;
    domain_config(domain, portico_abi::call::config::NAME_HI, (both >> 64) as u64)
}

/// Pauses or resumes a domain; `op` is one of [`portico_abi::call::run`].
///
/// # Errors
/// `BadState` if the domain has ended.
pub fn domain_run(domain: Handle, op: u64) -> Result<(), Status> {
    unit(Call::DomainRun, [h(domain), op, 0, 0, 0, 0])
}

/// Does a piece of destroying a domain.
///
/// # Errors
/// `BadHandle`, `NoRights`.
pub fn domain_destroy(domain: Handle) -> Result<Progress, Status> {
    call_piece(Call::DomainDestroy, [h(domain), 0, 0, 0, 0, 0])
}

/// State, end reason and accounts of a domain.
///
/// # Errors
/// `BadHandle`, `NoRights`.
pub fn domain_status(domain: Handle) -> Result<DomainStatus, Status> {
    crate::vcpu::with_buffer(|| unit(Call::DomainStatus, [h(domain), 0, 0, 0, 0, 0]))
}

/// Changes a domain's budget, in pages.
///
/// # Errors
/// `NoBudget`.
pub fn domain_budget(domain: Handle, pages: u64) -> Result<(), Status> {
    unit(Call::DomainBudget, [h(domain), pages, 0, 0, 0, 0])
}

// ----- vCPUs of others -----

/// Creates vCPU `index` with affinity `mpidr` and its page at `page_ipa`.
///
/// # Errors
/// `Exists`, `Limit`, `NoBudget`.
pub fn vcpu_create(domain: Handle, index: u32, mpidr: u64, page_ipa: u64) -> Result<Handle, Status> {
    handle(Call::VcpuCreate, [h(domain), u64::from(index), mpidr, page_ipa, 0, 0])
}

/// Powers a vCPU on at `pc` with `x0`.
///
/// # Errors
/// `BadState` if it is on.
pub fn vcpu_start(vcpu: Handle, pc: u64, x0: u64) -> Result<(), Status> {
    unit(Call::VcpuStart, [h(vcpu), pc, x0, 0, 0, 0])
}

/// Stops a vCPU.
///
/// # Errors
/// `BadState` if it is off.
pub fn vcpu_stop(vcpu: Handle) -> Result<(), Status> {
    unit(Call::VcpuStop, [h(vcpu), 0, 0, 0, 0, 0])
}

/// Reads a register of a stopped or faulted vCPU.
///
/// # Errors
/// `BadState` if it runs.
pub fn vcpu_state_get(vcpu: Handle, id: RegisterId) -> Result<u64, Status> {
    value(Call::VcpuState, [h(vcpu), 0, id as u64, 0, 0, 0])
}

/// Writes a register of a stopped or faulted vCPU.
///
/// # Errors
/// `BadState` if it runs, `Invalid` for a value that the register cannot hold.
pub fn vcpu_state_set(vcpu: Handle, id: RegisterId, to: u64) -> Result<(), Status> {
    unit(Call::VcpuState, [h(vcpu), 1, id as u64, to, 0, 0])
}

/// Parameters of [`vcpu_sched_set`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sched {
    /// One of [`portico_abi::call::sched`].
    pub class: u64,
    /// Weight, 1 to 65535.
    pub weight: u64,
    /// Cap in thousandths of one processor, 0 for none.
    pub cap_permille: u64,
    /// Period of a reservation, in nanoseconds.
    pub period_ns: u64,
    /// Budget in each period, in nanoseconds.
    pub budget_ns: u64,
    /// Mask of pCPUs, 0 for all.
    pub affinity: u64,
}

impl Default for Sched {
    fn default() -> Self {
        Self {
            class: portico_abi::call::sched::WEIGHTED,
            weight: portico_abi::call::sched::DEFAULT_WEIGHT,
            cap_permille: 0,
            period_ns: 0,
            budget_ns: 0,
            affinity: 0,
        }
    }
}

/// Sets the scheduling of a vCPU.
///
/// # Errors
/// `Overcommitted` if a reservation is not admitted; `Invalid`.
pub fn vcpu_sched_set(vcpu: Handle, to: Sched) -> Result<(), Status> {
    let class_weight = to.class | to.weight << 8;
    unit(Call::VcpuSchedSet, [h(vcpu), class_weight, to.cap_permille, to.period_ns, to.budget_ns, to.affinity])
}

/// The fault record of a faulted vCPU.
///
/// # Errors
/// `NotFound` if it did not fault.
pub fn vcpu_fault_get(vcpu: Handle) -> Result<FaultRecord, Status> {
    crate::vcpu::with_buffer(|| unit(Call::VcpuFaultGet, [h(vcpu), 0, 0, 0, 0, 0]))
}

/// Answers a fault.
///
/// # Errors
/// `BadState` if the vCPU is not faulted.
pub fn vcpu_fault_reply(vcpu: Handle, verb: FaultVerb, value: u64) -> Result<(), Status> {
    unit(Call::VcpuFaultReply, [h(vcpu), verb as u64, value, 0, 0, 0])
}

/// Accounts of a vCPU.
///
/// # Errors
/// `BadHandle`, `NoRights`.
pub fn vcpu_stats_read(vcpu: Handle) -> Result<VcpuStats, Status> {
    crate::vcpu::with_buffer(|| unit(Call::VcpuStatsRead, [h(vcpu), 0, 0, 0, 0, 0]))
}

// ----- memory -----

/// Cuts an extent at `offset` pages; the result is the upper part.
///
/// # Errors
/// `BadState` if it is mapped or lent, `Invalid` for an offset outside.
pub fn extent_split(extent: Handle, offset_pages: u64) -> Result<Handle, Status> {
    handle(Call::ExtentSplit, [h(extent), offset_pages, 0, 0, 0, 0])
}

/// Joins two adjacent extents; `second` is closed.
///
/// # Errors
/// `BadState`, `Invalid` if they are not adjacent.
pub fn extent_merge(first: Handle, second: Handle) -> Result<(), Status> {
    unit(Call::ExtentMerge, [h(first), h(second), 0, 0, 0, 0])
}

/// Hands an extent over for good; the result is a handle in `domain`'s table.
///
/// # Errors
/// `BadState`, `Dirty`, `NoBudget`.
pub fn extent_donate(extent: Handle, domain: Handle) -> Result<Handle, Status> {
    handle(Call::ExtentDonate, [h(extent), h(domain), 0, 0, 0, 0])
}

/// Lends a part of an extent; the result is a grant in `domain`'s table.
///
/// # Errors
/// `Dirty`, `NoBudget`, `Invalid`.
pub fn extent_lend(extent: Handle, domain: Handle, offset: u64, pages: u64, attrs: u64) -> Result<Handle, Status> {
    handle(Call::ExtentLend, [h(extent), h(domain), offset, pages, attrs, 0])
}

/// Does a piece of mapping `extent` at `ipa` in `domain`.
///
/// # Errors
/// `Exists` if the range is taken, `NoBudget`, `BadState`.
pub fn extent_map(extent: Handle, domain: Handle, ipa: u64, attrs: u64) -> Result<Progress, Status> {
    call_piece(Call::ExtentMap, [h(extent), h(domain), ipa, attrs, 0, 0])
}

/// Does a piece of mapping the grant `theirs`, of `domain`'s table, at `ipa` in `domain`.
///
/// # Errors
/// As [`extent_map`].
pub fn grant_map(theirs: Handle, domain: Handle, ipa: u64, attrs: u64) -> Result<Progress, Status> {
    call_piece(Call::ExtentMap, [0, h(domain), ipa, attrs, h(theirs), 0])
}

/// Does a piece of taking the mapping of `extent` away.
///
/// # Errors
/// `BadState` if it is not mapped.
pub fn extent_unmap(extent: Handle, domain: Handle) -> Result<Progress, Status> {
    call_piece(Call::ExtentUnmap, [h(extent), h(domain), 0, 0, 0, 0])
}

/// Does a piece of taking the mapping of the grant `theirs`, of `domain`'s table, away.
///
/// # Errors
/// As [`extent_unmap`].
pub fn grant_unmap(theirs: Handle, domain: Handle) -> Result<Progress, Status> {
    call_piece(Call::ExtentUnmap, [0, h(domain), h(theirs), 0, 0, 0])
}

/// Does a piece of taking all grants of an extent back.
///
/// # Errors
/// `BadHandle`, `NoRights`.
pub fn extent_revoke(extent: Handle) -> Result<Progress, Status> {
    call_piece(Call::ExtentRevoke, [h(extent), 0, 0, 0, 0, 0])
}

/// Does a piece of zeroing an extent.
///
/// # Errors
/// `BadState` if it is mapped or lent.
pub fn extent_scrub(extent: Handle) -> Result<Progress, Status> {
    call_piece(Call::ExtentScrub, [h(extent), 0, 0, 0, 0, 0])
}

/// What [`extent_info`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentInfo {
    /// Length in pages.
    pub pages: u64,
    /// Bits of [`portico_abi::call::extent_flags`].
    pub flags: u64,
    /// IPA of the mapping, if there is one.
    pub ipa: Option<u64>,
}

/// Length, flags and mapping of an extent or grant.
///
/// # Errors
/// `BadHandle`, `WrongType`, `NoRights`.
pub fn extent_info(extent: Handle) -> Result<ExtentInfo, Status> {
    call(Call::ExtentInfo, [h(extent), 0, 0, 0, 0, 0]).map(|[pages, flags, ipa]| ExtentInfo {
        pages,
        flags,
        ipa: (ipa != u64::MAX).then_some(ipa),
    })
}

// ----- the machine -----

/// Gives a 2 MiB extent to EL2's pool; the handle is closed.
///
/// # Errors
/// `Invalid` if it is not 2 MiB long and aligned, `BadState` if it is mapped or lent.
pub fn pool_add(system: Handle, extent: Handle) -> Result<(), Status> {
    unit(Call::PoolAdd, [h(system), h(extent), 0, 0, 0, 0])
}

/// Takes a free block back out of the pool.
///
/// # Errors
/// `BadState` if there is none.
pub fn pool_reclaim(system: Handle) -> Result<Handle, Status> {
    handle(Call::PoolReclaim, [h(system), 0, 0, 0, 0, 0])
}

/// Pages in the pool, promised as budgets, and in use.
///
/// # Errors
/// `NoRights`.
pub fn pool_info(system: Handle) -> Result<(u64, u64, u64), Status> {
    call(Call::PoolInfo, [h(system), 0, 0, 0, 0, 0]).map(|[a, b, c]| (a, b, c))
}

/// How a device signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Trigger {
    /// Level: stays active until [`irq_complete`].
    Level = 0,
    /// Edge.
    Edge = 1,
}

/// Makes the handle of a physical interrupt.
///
/// # Errors
/// `Exists`, `Invalid` for one that EL2 uses itself.
pub fn irq_create(system: Handle, intid: u32, trigger: Trigger, cookie: u64) -> Result<Handle, Status> {
    handle(Call::IrqCreate, [h(system), u64::from(intid), trigger as u64, cookie, 0, 0])
}

/// Binds an interrupt to bit `bit` of the caller's vCPU `vcpu` and enables it.
///
/// # Errors
/// `Exists`, `Limit`, `NotFound`.
pub fn irq_bind(irq: Handle, vcpu: u32, bit: u16) -> Result<(), Status> {
    unit(Call::IrqBind, [h(irq), u64::from(vcpu), u64::from(bit), 0, 0, 0])
}

/// Disables an interrupt and unbinds it.
///
/// # Errors
/// `BadState` if it is not bound.
pub fn irq_unbind(irq: Handle) -> Result<(), Status> {
    unit(Call::IrqUnbind, [h(irq), 0, 0, 0, 0, 0])
}

/// Makes an extent of device memory at machine address `pa`.
///
/// # Errors
/// `Invalid` for RAM and for what EL2 uses itself, `Exists`.
pub fn device_extent(system: Handle, pa: u64, pages: u64, cookie: u64) -> Result<Handle, Status> {
    handle(Call::DeviceExtent, [h(system), pa, pages, cookie, 0, 0])
}

/// Machine address of the first page of an extent.
///
/// # Errors
/// `NoRights`.
pub fn extent_address(system: Handle, extent: Handle) -> Result<u64, Status> {
    value(Call::ExtentAddress, [h(system), h(extent), 0, 0, 0, 0])
}

/// Mixes 32 bytes of entropy into EL2's generator.
///
/// # Errors
/// `NoRights`.
pub fn entropy_feed(system: Handle, words: [u64; 4]) -> Result<(), Status> {
    let [w0, w1, w2, w3] = words;
    unit(Call::EntropyFeed, [h(system), w0, w1, w2, w3, 0])
}

/// Figures of the whole machine.
///
/// # Errors
/// `NoRights`.
pub fn system_stats(system: Handle) -> Result<SystemStats, Status> {
    crate::vcpu::with_buffer(|| unit(Call::StatsRead, [h(system), 0, 0, 0, 0, 0]))
}

/// Figures of pCPU `pcpu`.
///
/// # Errors
/// `NotFound` if there is no such pCPU.
pub fn pcpu_stats(system: Handle, pcpu: u32) -> Result<PcpuStats, Status> {
    crate::vcpu::with_buffer(|| unit(Call::StatsRead, [h(system), u64::from(pcpu) + 1, 0, 0, 0, 0]))
}

/// Powers the machine off or resets it; `op` is one of [`portico_abi::call::power`]. Returns only if refused.
///
/// # Errors
/// `NoRights`.
pub fn system_off(system: Handle, op: u64) -> Result<(), Status> {
    unit(Call::SystemOff, [h(system), op, 0, 0, 0, 0])
}
