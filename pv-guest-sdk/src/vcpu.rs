//! The calling vCPU: its index, its page, and what the SDK keeps for it.

use crate::irq;
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering};
use portico_abi::Status;
use portico_abi::page::{BUFFER_BYTES, MAX_VCPUS, VcpuPage};
use portico_abi::pending::GuestSide;
use portico_abi::port::{PORT_BITS, SELECTORS};
use portico_abi::record::{DomainStatus, EarlyText, FaultRecord, PcpuStats, SystemStats, VcpuStats};

/// What the SDK keeps for each vCPU. A pointer to it stands in TPIDR_EL1.
#[repr(C, align(64))]
pub struct PerVcpu {
    index: AtomicU32,
    /// Non-zero while [`crate::trap::catch`] waits for an exception.
    pub(crate) catching: AtomicU32,
    pub(crate) caught_esr: AtomicU64,
    pub(crate) caught_far: AtomicU64,
    page: AtomicPtr<u8>,
}

impl PerVcpu {
    #[expect(clippy::declare_interior_mutable_const, reason = "each element of the array is a fresh one")]
    const NEW: PerVcpu = PerVcpu {
        index: AtomicU32::new(0),
        catching: AtomicU32::new(0),
        caught_esr: AtomicU64::new(0),
        caught_far: AtomicU64::new(0),
        page: AtomicPtr::new(ptr::null_mut()),
    };

    /// Index of the vCPU in its domain.
    #[inline]
    pub fn index(&self) -> u32 {
        self.index.load(Ordering::Relaxed)
    }

    /// Its page, once [`init`] ran on it.
    #[inline]
    pub fn page(&self) -> Option<Page> {
        ptr::NonNull::new(self.page.load(Ordering::Relaxed)).map(|base| Page { base })
    }
}

static VCPUS: [PerVcpu; MAX_VCPUS] = [PerVcpu::NEW; MAX_VCPUS];

/// The page that EL2 shares with one vCPU, reached byte by byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    base: ptr::NonNull<u8>,
}

// SAFETY: whoever has it reaches the page by atomic and volatile accesses only.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    #[inline]
    fn byte(&self, offset: usize) -> &'static AtomicU8 {
        debug_assert!(offset < size_of::<VcpuPage>());
        // SAFETY: the page is mapped for the life of the domain and both sides reach these bytes by atomic byte
        // accesses only; every caller in this file stays inside the page.
        unsafe { AtomicU8::from_ptr(self.base.as_ptr().add(offset)) }
    }

    #[inline]
    fn word(&self, offset: usize) -> u64 {
        debug_assert!(offset.is_multiple_of(8) && offset < size_of::<VcpuPage>());
        // SAFETY: as in `byte`; the offset is a multiple of 8 and the page is aligned.
        unsafe { ptr::read_volatile(self.base.as_ptr().add(offset).cast::<u64>()) }
    }

    /// `upcall_pending`.
    #[inline]
    pub fn upcall_pending(&self) -> &'static AtomicU8 {
        self.byte(offset_of!(VcpuPage, upcall_pending))
    }

    /// Selector byte `selector` (below [`SELECTORS`]; taken modulo).
    #[inline]
    pub fn selector(&self, selector: usize) -> &'static AtomicU8 {
        self.byte(offset_of!(VcpuPage, selectors) + selector % SELECTORS)
    }

    /// Pending byte of a port bit (taken modulo [`PORT_BITS`]).
    #[inline]
    pub fn pending(&self, bit: u16) -> &'static AtomicU8 {
        self.byte(offset_of!(VcpuPage, pending) + usize::from(bit) % PORT_BITS)
    }

    /// Mask byte of a port bit (taken modulo [`PORT_BITS`]).
    #[inline]
    pub fn mask(&self, bit: u16) -> &'static AtomicU8 {
        self.byte(offset_of!(VcpuPage, mask) + usize::from(bit) % PORT_BITS)
    }

    /// Times in each state: running, ready and blocked, in nanoseconds.
    pub fn run_state(&self) -> (u64, u64, u64) {
        let at = offset_of!(VcpuPage, run_state);
        loop {
            let before = self.word(at) as u32;
            core::sync::atomic::fence(Ordering::Acquire);
            let times = (self.word(at + 8), self.word(at + 16), self.word(at + 24));
            core::sync::atomic::fence(Ordering::Acquire);
            if before & 1 == 0 && before == self.word(at) as u32 {
                return times;
            }
        }
    }

    /// Address of the first byte.
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }
}

impl GuestSide for Page {
    #[inline]
    fn clear_upcall(self) {
        self.upcall_pending().store(0, Ordering::Relaxed);
    }

    #[inline]
    fn selectors(self, word: usize) -> u64 {
        self.word(offset_of!(VcpuPage, selectors) + word % (SELECTORS / 8) * 8)
    }

    #[inline]
    fn clear_selector(self, selector: usize) {
        self.selector(selector).store(0, Ordering::Relaxed);
    }

    #[inline]
    fn pending(self, word: usize) -> u64 {
        self.word(offset_of!(VcpuPage, pending) + word % (PORT_BITS / 8) * 8)
    }

    #[inline]
    fn clear_pending(self, bit: u16) {
        Page::pending(&self, bit).store(0, Ordering::Relaxed);
    }

    #[inline]
    fn clear_mask(self, bit: u16) {
        self.mask(bit).store(0, Ordering::Relaxed);
    }
}

/// What the SDK keeps for the calling vCPU.
#[inline(always)]
pub fn current() -> &'static PerVcpu {
    #[cfg(target_os = "none")]
    {
        let pointer: *const PerVcpu;
        // SAFETY: reads a register without side effects.
        unsafe { core::arch::asm!("mrs {}, tpidr_el1", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
        // SAFETY: `init` put the address of an element of `VCPUS` there before anything could call this.
        unsafe { &*pointer }
    }
    #[cfg(not(target_os = "none"))]
    {
        &VCPUS[0]
    }
}

/// Index of the calling vCPU.
#[inline]
pub fn index() -> u32 {
    current().index()
}

/// Number of vCPUs that the domain has.
pub fn count() -> u32 {
    crate::hvc::self_info(portico_abi::call::info::VCPU_COUNT, 0).unwrap_or(1) as u32
}

/// What the SDK keeps for vCPU `index`.
pub fn of(index: u32) -> Option<&'static PerVcpu> {
    VCPUS.get(index as usize)
}

/// Sets the calling vCPU up as number `index`: from here on [`current`] works on it.
///
/// # Safety
/// Called once on each vCPU, with its own index, before anything else of this crate but [`crate::hvc`].
pub unsafe fn init(index: u32) {
    let Some(vcpu) = VCPUS.get(index as usize) else { return };
    vcpu.index.store(index, Ordering::Relaxed);
    if let Ok(ipa) = crate::hvc::self_info(portico_abi::call::info::VCPU_PAGE_IPA, u64::from(index)) {
        vcpu.page.store(ptr::with_exposed_provenance_mut(ipa as usize), Ordering::Relaxed);
    }
    #[cfg(target_os = "none")]
    // SAFETY: TPIDR_EL1 belongs to the SDK; nothing else of EL1 uses it.
    unsafe {
        core::arch::asm!("msr tpidr_el1, {}", in(reg) ptr::from_ref(vcpu), options(nostack, preserves_flags));
    }
}

/// A record that a call writes to the buffer: any bytes are a value of it.
///
/// # Safety
/// Every byte pattern must be valid for the type.
pub unsafe trait Record: Copy {}
// SAFETY: integers and arrays of integers only.
unsafe impl Record for DomainStatus {}
// SAFETY: as above.
unsafe impl Record for FaultRecord {}
// SAFETY: as above.
unsafe impl Record for VcpuStats {}
// SAFETY: as above.
unsafe impl Record for SystemStats {}
// SAFETY: as above.
unsafe impl Record for PcpuStats {}
// SAFETY: as above.
unsafe impl Record for EarlyText {}

/// Makes a call that writes a record to the buffer, and takes the record out.
///
/// Interrupts are masked meanwhile, so that no handler's call overwrites it.
pub(crate) fn with_buffer<T: Record>(call: impl FnOnce() -> Result<(), Status>) -> Result<T, Status> {
    const { assert!(size_of::<T>() <= BUFFER_BYTES && align_of::<T>() <= 8) };
    let _guard = irq::Guard::new();
    let page = current().page().ok_or(Status::BadState)?;
    call()?;
    let at = page.base().wrapping_add(offset_of!(VcpuPage, buffer));
    // SAFETY: the buffer is 1 KiB, 8-byte aligned, inside the page; EL2 writes it only during a call of this vCPU.
    Ok(unsafe { ptr::read_volatile(at.cast::<T>()) })
}
