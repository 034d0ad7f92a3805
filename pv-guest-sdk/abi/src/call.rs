//! The calls: numbers, names, arguments, results.
//!
//! A call is an SMCCC fast HVC64 call in the vendor-specific hypervisor range: `hvc #0` with the
//! function id in w0 and arguments in x1..x6. It returns a [`Status`](crate::Status) in x0 and results in
//! x1..x3. All other registers are preserved. Bit 16 of the id (the SVE hint) is ignored.
//!
//! Arguments that a call does not list must not be relied on: EL2 ignores them. Bits of an argument that
//! have no meaning yet must be zero, or the call fails with `Invalid`.

/// Function id of call number 0. A call's id is this plus its number.
pub const FUNCTION_BASE: u32 = 0xC600_0000;
/// Bits of the function id that hold the call number.
pub const NUMBER_MASK: u32 = 0xffff;
/// The SMCCC hint bit "no live SVE state", ignored in every id.
pub const SVE_HINT: u32 = 1 << 16;
/// First number of the management calls, which have a version of their own.
pub const MANAGEMENT_BASE: u32 = 0x100;

/// How long a call can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Always done in one bounded piece.
    Bounded,
    /// Does a bounded piece, returns `Again` until all is done. Any holder of the right may go on with it.
    Restartable,
    /// Gives up the processor; returns when woken or at its deadline.
    Blocks,
    /// Does not return.
    NoReturn,
}

/// One row of the call table.
#[derive(Clone, Copy, Debug)]
pub struct CallInfo {
    /// The call.
    pub call: Call,
    /// Call number.
    pub number: u32,
    /// Name as in C: `port_notify`.
    pub name: &'static str,
    /// Names of the arguments, x1 first.
    pub args: &'static [&'static str],
    /// Names of the results, x1 first.
    pub results: &'static [&'static str],
    /// Rights needed, in words.
    pub rights: &'static str,
    /// How long it can take.
    pub bound: Bound,
    /// What it does, in words.
    pub doc: &'static str,
}

macro_rules! calls {
    ($($(#[doc = $doc:literal])*
       $number:literal $variant:ident $name:ident($($arg:ident),*) -> ($($res:ident),*) $bound:ident $rights:literal;)*) => {
        /// A call of the ABI.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Call { $($(#[doc = $doc])* $variant = $number),* }

        impl Call {
            /// Every call, in order of number.
            pub const TABLE: &[CallInfo] = &[$(CallInfo {
                call: Call::$variant, number: $number, name: stringify!($name),
                args: &[$(stringify!($arg)),*], results: &[$(stringify!($res)),*],
                rights: $rights, bound: Bound::$bound, doc: concat!($($doc, "\n"),*),
            }),*];

            /// Decodes a call number. An unknown number is `None`.
            #[inline]
            pub fn from_number(number: u32) -> Option<Call> {
                // A table, not a match: that is a comparison for each call.
                const NUMBERS: usize = Call::TABLE[Call::TABLE.len() - 1].number as usize + 1;
                static BY_NUMBER: [Option<Call>; NUMBERS] = {
                    let mut table = [None; NUMBERS];
                    $(table[$number] = Some(Call::$variant);)*
                    table
                };
                BY_NUMBER.get(number as usize).copied().flatten()
            }
        }
    };
}

calls! {
    /// Version and features. `page` 0: version = major << 16 | minor, features = bits of [`features`],
    /// management = version of the management calls. Other pages answer zeros.
    0x000 AbiFeatures abi_features(page) -> (version, features, management) Bounded "none";
    /// A fact about the caller; `key` is one of [`info`], `index` as the key says. `NotFound` for an unknown key.
    0x001 SelfInfo self_info(key, index) -> (value) Bounded "none";
    /// Writes `len` (1 to 40) bytes, packed little-endian into x2..x6, to the hypervisor's log, which the manager reads and shows as
    /// the caller's output. For the time before a console channel is up; limited in rate. What the first domain writes goes to the
    /// machine's UART at once.
    0x002 EarlyWrite early_write(len, w0, w1, w2, w3, w4) -> () Bounded "none";
    /// Ends the calling domain. `kind` is one of [`exit`], `code` is passed to whoever watches it.
    0x003 SelfExit self_exit(kind, code) -> () NoReturn "none";

    /// What a handle names: type in bits 7:0 and rights in bits 31:16 of `kind`, the holder's cookie, and
    /// a state that depends on the type (domain: [`crate::record::DomainState`]; port: 1 if the peer is gone).
    0x010 HandleInfo handle_info(handle) -> (kind, cookie, state) Bounded "none";
    /// Lists a domain's handles from slot `cursor` on: the next live handle and the cursor after it;
    /// `NotFound` at the end.
    0x011 HandleNext handle_next(domain, cursor) -> (handle, next, kind) Bounded "INSPECT on domain";
    /// Copies a handle into `domain`'s table with `rights` (a subset) and a cookie of its own.
    0x012 HandleCopy handle_copy(handle, domain, rights, cookie) -> (copy) Bounded "COPY on handle; CREATE on domain";
    /// Closes a handle. The last handle to a port unbinds it and tells the peer; the last one to a grant
    /// returns the grant. A port or interrupt that is bound to a vCPU of the closing domain is unbound; one that
    /// the closing domain pays for ends with that domain's last handle to it, wherever else it has handles. Extents, domains and vCPUs outlive their handles only while another is open: closing the
    /// last is refused with `BadState`.
    0x013 HandleClose handle_close(handle) -> () Bounded "none";

    /// Notifies the other end of a port. Succeeds, with no further effect, if it is already pending or masked.
    0x020 PortNotify port_notify(port) -> () Bounded "NOTIFY";
    /// `port_notify`, then `vcpu_block`, in one trap.
    0x021 PortNotifyWait port_notify_wait(port, deadline) -> () Blocks "NOTIFY";
    /// Makes a pair of linked ports, one in each domain's table (they may be the same).
    0x022 PortPairCreate port_pair_create(domain_a, domain_b, cookie_a, cookie_b) -> (port_a, port_b) Bounded "CREATE on both";
    /// Binds a port of the caller's table to bit `bit` of the caller's vCPU number `vcpu`. If it was notified
    /// before, it is pending at once. Binding a bound port moves it. `class` must be 0.
    0x023 PortBind port_bind(port, vcpu, bit, class) -> () Bounded "BIND";
    /// Unbinds a port; notifications are remembered until it is bound again.
    0x024 PortUnbind port_unbind(port) -> () Bounded "BIND";

    /// Blocks the calling vCPU until `upcall_pending` is set or CNTVCT_EL0 reaches `deadline`. Returns `Ok`
    /// for the first, `TimedOut` for the second.
    0x030 VcpuBlock vcpu_block(deadline) -> () Blocks "none";
    /// Gives up the rest of the time slice.
    0x031 VcpuYield vcpu_yield() -> () Bounded "none";

    /// Says that a level-triggered device interrupt was handled: EL2 deactivates it, and it can fire again.
    0x040 IrqComplete irq_complete(irq) -> () Bounded "BIND";

    /// Creates a domain. `budget` is in pages and comes from the pool; `max_vcpus` 1 to 48; `ipa_bits` 32 to 39;
    /// `flags` must be 0. The caller watches it: its `BIT_EVENT` is notified when the new domain's state changes.
    0x100 DomainCreate domain_create(budget, max_vcpus, ipa_bits, flags, cookie) -> (domain) Bounded "holder of System with ROOT";
    /// Sets a property; `key` is one of [`config`].
    0x101 DomainConfig domain_config(domain, key, value) -> () Bounded "CONFIG";
    /// Pauses (`op` 1) or resumes (`op` 0) all vCPUs of a domain. Pausing is asynchronous by at most one interrupt.
    0x102 DomainRun domain_run(domain, op) -> () Bounded "RUN";
    /// Destroys a domain: stops its vCPUs, takes back its mappings, grants, ports and handles, returns its budget.
    0x103 DomainDestroy domain_destroy(domain) -> () Restartable "DESTROY";
    /// Writes a [`crate::record::DomainStatus`] to the caller's buffer.
    0x104 DomainStatus domain_status(domain) -> () Bounded "INSPECT";
    /// Changes a domain's budget, in pages. `NoBudget` if the pool lacks them or the domain uses more already.
    0x105 DomainBudget domain_budget(domain, pages) -> () Bounded "CONFIG";

    /// Creates vCPU `index` with affinity `mpidr`. Its page appears at `page_ipa` in the domain. It is off.
    0x110 VcpuCreate vcpu_create(domain, index, mpidr, page_ipa, cookie) -> (vcpu) Bounded "CONFIG";
    /// Powers a vCPU on at `pc` with `x0` and the register state of the boot contract. One that `vcpu_stop` stopped goes on where it was
    /// instead; `pc` and `x0` are then ignored.
    0x111 VcpuStart vcpu_start(vcpu, pc, x0) -> () Bounded "RUN";
    /// Stops a vCPU as soon as it leaves its processor; its state can then be read.
    0x112 VcpuStop vcpu_stop(vcpu) -> () Bounded "RUN";
    /// Reads (`op` 0) or writes (`op` 1) the register `id` (one of [`crate::record::RegisterId`]) of a stopped or faulted vCPU.
    0x113 VcpuState vcpu_state(vcpu, op, id, value) -> (value) Bounded "FAULT";
    /// Sets scheduling: `class_weight` = class | weight << 8 (class 0 weighted, 1 reservation; weight 1 to 65535, 256 by default);
    /// `cap` in thousandths of one processor, 0 for none; for a reservation `budget_ns` in each `period_ns`; `affinity` is a mask of pCPUs, 0 for all.
    0x114 VcpuSchedSet vcpu_sched_set(vcpu, class_weight, cap, period_ns, budget_ns, affinity) -> () Bounded "SCHED";
    /// Writes the [`crate::record::FaultRecord`] of a faulted vCPU to the caller's buffer.
    0x115 VcpuFaultGet vcpu_fault_get(vcpu) -> () Bounded "FAULT";
    /// Answers a fault: `verb` is one of [`crate::record::FaultVerb`].
    0x116 VcpuFaultReply vcpu_fault_reply(vcpu, verb, value) -> () Bounded "FAULT";
    /// Writes a [`crate::record::VcpuStats`] to the caller's buffer.
    0x117 VcpuStatsRead vcpu_stats_read(vcpu) -> () Bounded "INSPECT";

    /// Cuts an unmapped, unlent extent at `offset` pages; the upper part becomes a new extent.
    0x120 ExtentSplit extent_split(extent, offset) -> (upper) Bounded "OWN";
    /// Joins two adjacent, unmapped, unlent extents of one owner; `second` must begin where `first` ends. `second` is closed.
    0x121 ExtentMerge extent_merge(first, second) -> () Bounded "OWN on both";
    /// Hands an unmapped, unlent extent over to `domain` for good; the caller's handle is closed.
    0x122 ExtentDonate extent_donate(extent, domain) -> (theirs) Bounded "DONATE; CREATE on domain";
    /// Lends `pages` pages from `offset` to `domain` with `attrs` (see [`attrs`]): a grant that the borrower can map or close, not pass on.
    0x123 ExtentLend extent_lend(extent, domain, offset, pages, attrs) -> (grant) Bounded "SHARE; CREATE on domain";
    /// Maps an extent or a grant, whole, at `ipa` in `domain`, with `attrs`. An extent has at most one mapping, and so has each grant.
    /// A grant can be mapped only in its borrower, by the borrower (`domain` = self) or, with its handle in the borrower's
    /// table named by `theirs` instead of `extent` = 0, by whoever has CONFIG on it.
    0x124 ExtentMap extent_map(extent, domain, ipa, attrs, theirs) -> (done) Restartable "MAP; CONFIG on domain unless self";
    /// Takes the mapping of an extent or grant away, whole. `domain` and `theirs` as in `extent_map`.
    0x125 ExtentUnmap extent_unmap(extent, domain, theirs) -> (done) Restartable "MAP";
    /// Takes back all grants of an extent: when it says `Ok` no borrower can reach it any more on any processor.
    0x126 ExtentRevoke extent_revoke(extent) -> (left) Restartable "OWN";
    /// Zeroes an unmapped, unlent extent and cleans it to the point of coherency.
    0x127 ExtentScrub extent_scrub(extent) -> (done) Restartable "OWN";
    /// Length in pages, flags (see [`extent_flags`]), and the IPA of the mapping or all ones.
    0x128 ExtentInfo extent_info(extent) -> (pages, flags, ipa) Bounded "INSPECT";

    /// Gives a 2 MiB aligned, 2 MiB long, unmapped RAM extent to EL2's pool of object pages. The handle is closed.
    0x130 PoolAdd pool_add(system, extent) -> () Bounded "ROOT; OWN on extent";
    /// Takes one wholly free block back out of the pool; `BadState` if there is none.
    0x131 PoolReclaim pool_reclaim(system) -> (extent) Bounded "ROOT";
    /// Pages in the pool, pages promised as budgets, pages in use. Of each block a page is EL2's own, which counts as both.
    0x132 PoolInfo pool_info(system) -> (pages, promised, used) Bounded "ROOT";

    /// Makes the handle of a physical interrupt that EL2 does not use itself. `flags` bit 0: edge-triggered.
    0x140 IrqCreate irq_create(system, intid, flags, cookie) -> (irq) Bounded "ROOT";
    /// Binds an interrupt of the caller's table to bit `bit` of the caller's vCPU `vcpu` and enables it.
    0x141 IrqBind irq_bind(irq, vcpu, bit) -> () Bounded "BIND";
    /// Disables an interrupt and unbinds it.
    0x142 IrqUnbind irq_unbind(irq) -> () Bounded "BIND";
    /// Makes an extent of device memory at machine address `pa`: refused for RAM, for what EL2 uses itself, and for
    /// addresses that the machine does not have.
    0x143 DeviceExtent device_extent(system, pa, pages, cookie) -> (extent) Bounded "ROOT";
    /// Machine address of the first page of an extent, for the driver of a device that no IOMMU stands before.
    0x144 ExtentAddress extent_address(system, extent) -> (address) Bounded "ROOT; OWN on extent";

    /// Mixes 32 bytes of entropy into EL2's generator and marks it seeded.
    0x150 EntropyFeed entropy_feed(system, w0, w1, w2, w3) -> () Bounded "ROOT";
    /// Writes a [`crate::record::SystemStats`] (`index` 0) or the [`crate::record::PcpuStats`] of pCPU `index` - 1 to the caller's buffer.
    0x151 StatsRead stats_read(system, index) -> () Bounded "ROOT";
    /// Takes the oldest text that a domain wrote by `early_write` out of the log: a [`crate::record::EarlyText`] in the caller's buffer.
    /// `NotFound` if there is none. A domain's watcher is sent an event when there is some.
    0x152 LogRead log_read(system) -> () Bounded "ROOT";
    /// Powers the machine off (`op` 0) or resets it (`op` 1).
    0x153 SystemOff system_off(system, op) -> () NoReturn "ROOT";

    /// Reserved: makes an immutable image of an extent, the base of clones.
    0x160 ExtentSeal extent_seal(extent) -> (image) Restartable "OWN";
    /// Reserved: maps an image copy-on-write into a new domain.
    0x161 DomainClone domain_clone(image, child, ipa, copy_budget) -> (done) Restartable "CONFIG";
    /// Reserved: starts, fetches or stops the dirty log of a domain.
    0x162 DirtyLog dirty_log(domain, op, first, pages) -> (done) Restartable "CONFIG";
    /// Reserved: reads or sets a domain's virtual time.
    0x163 DomainTime domain_time(domain, op, value) -> (value) Bounded "CONFIG";
}

impl Call {
    /// The function id for w0.
    pub const fn function_id(self) -> u32 {
        FUNCTION_BASE + self as u32
    }

    /// Decodes a function id. `None` if it is not in our range or the number is unknown.
    #[inline(always)]
    pub fn from_function_id(id: u32) -> Option<Call> {
        let id = id & !SVE_HINT;
        if id & !NUMBER_MASK != FUNCTION_BASE { None } else { Call::from_number(id & NUMBER_MASK) }
    }
}

/// Bits of `abi_features`.
pub mod features {
    /// Ports, vCPU pages and the upcall are offered (always).
    pub const PORTS: u64 = 1 << 0;
    /// Reservations are offered.
    pub const RESERVATION: u64 = 1 << 1;
    /// PV_TIME stolen time is offered.
    pub const STOLEN_TIME: u64 = 1 << 2;
}

/// Keys of `self_info`.
pub mod info {
    /// vINTID of the upcall interrupt.
    pub const UPCALL_VINTID: u64 = 1;
    /// How the upcall is acknowledged: 3 = ICC_* system registers, 2 = GICv2 CPU interface page.
    pub const UPCALL_KIND: u64 = 2;
    /// IPA of the GICv2 CPU interface (8 KiB), if the kind is 2.
    pub const UPCALL_GICV_IPA: u64 = 3;
    /// IPA of the page of vCPU `index`.
    pub const VCPU_PAGE_IPA: u64 = 4;
    /// Index of the calling vCPU.
    pub const VCPU_INDEX: u64 = 5;
    /// Number of vCPUs that exist.
    pub const VCPU_COUNT: u64 = 6;
    /// MPIDR of vCPU `index`.
    pub const VCPU_MPIDR: u64 = 7;
    /// IPA of the information page.
    pub const INFO_PAGE_IPA: u64 = 8;
    /// Generation: changes when the domain was restored or cloned.
    pub const GENERATION: u64 = 9;
    /// Budget left, in pages.
    pub const BUDGET_LEFT: u64 = 10;
    /// Raw System handle, for the domain that EL2 started; `NotFound` for every other.
    pub const SYSTEM_HANDLE: u64 = 11;
    /// Value of the machine's counter at which CNTVCT_EL0 was 0, for the domain that EL2 started; `NotFound` for every other.
    pub const COUNTER_OFFSET: u64 = 12;
    /// How often the domain that EL2 started was begun anew (its handles and mappings stay; its status tells why it ended last), for that domain;
    /// `NotFound` for every other.
    pub const RESTARTS: u64 = 13;
    /// IPA of the machine's own device tree, for the domain that EL2 started; `NotFound` for every other.
    pub const MACHINE_TREE: u64 = 14;
}

/// Kinds of `self_exit`.
pub mod exit {
    /// Orderly end; `code` 0 is success.
    pub const EXIT: u64 = 0;
    /// The guest found itself broken.
    pub const PANIC: u64 = 1;
    /// The guest asks to be started afresh.
    pub const REBOOT: u64 = 2;
}

/// Keys of `domain_config`. All but `NAME_*` and `WATCHDOG` only before the first vCPU starts.
pub mod config {
    /// Name, first 8 bytes little-endian; ASCII, zero-padded. EL2 only prints it.
    pub const NAME_LO: u64 = 1;
    /// Name, second 8 bytes.
    pub const NAME_HI: u64 = 2;
    /// IPA at which the GICv2 CPU interface appears on a GICv2 machine (two pages); ignored on GICv3.
    pub const GICV_IPA: u64 = 3;
    /// IPA at which the read-only information page appears.
    pub const INFO_PAGE_IPA: u64 = 4;
    /// What happens on a fault: 0 = the domain is CRASHED (default), 1 = the vCPU is FAULTED and its watcher replies.
    pub const FAULT_POLICY: u64 = 5;
}

/// `attrs` of `extent_map` and `extent_lend`.
pub mod attrs {
    /// Readable (always on).
    pub const READ: u64 = 1 << 0;
    /// Writable.
    pub const WRITE: u64 = 1 << 1;
    /// Executable.
    pub const EXEC: u64 = 1 << 2;
    /// Device-nGnRE memory; only and always for device extents.
    pub const DEVICE: u64 = 1 << 3;
    /// Every bit with a meaning.
    pub const ALL: u64 = READ | WRITE | EXEC | DEVICE;
}

/// `flags` of `extent_info`.
pub mod extent_flags {
    /// A grant, not an extent of one's own.
    pub const GRANT: u64 = 1 << 0;
    /// Device memory.
    pub const DEVICE: u64 = 1 << 1;
    /// Holds another domain's data: scrub before it can go to a third.
    pub const DIRTY: u64 = 1 << 2;
    /// Mapped.
    pub const MAPPED: u64 = 1 << 3;
    /// Lent, wholly or in part.
    pub const LENT: u64 = 1 << 4;
    /// Being revoked.
    pub const REVOKING: u64 = 1 << 5;
    /// Grants only: the owner allows writing.
    pub const WRITE: u64 = 1 << 6;
}

/// `op` of `domain_run`.
pub mod run {
    /// Resume.
    pub const RESUME: u64 = 0;
    /// Pause.
    pub const PAUSE: u64 = 1;
}

/// `op` of `system_off`.
pub mod power {
    /// Power off.
    pub const OFF: u64 = 0;
    /// Reset.
    pub const RESET: u64 = 1;
}

/// Scheduling classes of `vcpu_sched_set`.
pub mod sched {
    /// Shares by weight.
    pub const WEIGHTED: u64 = 0;
    /// Budget in each period, before all weighted vCPUs.
    pub const RESERVATION: u64 = 1;
    /// Weight of a vCPU for which none was set.
    pub const DEFAULT_WEIGHT: u64 = 256;
}

#[cfg(test)]
mod tests {
    use super::Call;

    #[test]
    fn table_is_ordered_and_decodes() {
        for pair in Call::TABLE.windows(2) {
            assert!(pair[0].number < pair[1].number);
        }
        for row in Call::TABLE {
            assert_eq!(Call::from_number(row.number), Some(row.call));
            assert_eq!(Call::from_function_id(row.call.function_id() | super::SVE_HINT), Some(row.call));
            assert!(row.args.len() <= 6 && row.results.len() <= 3);
        }
        assert_eq!(Call::from_number(0xffff), None);
        assert_eq!(Call::from_function_id(0x8400_0000), None);
    }
}
