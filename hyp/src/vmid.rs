//! VMIDs of domains: assigned when a domain is entered, by generation.
//!
//! The fast path is one comparison. A lock of its own, below all others, guards the allocator.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use crate::graph::Ref;
use crate::lock::Lock;
use crate::object::domain::Domain;
use crate::percpu::{self, Pcpu};
use portico_arch::pcpu::MAX_PCPUS;
use portico_arch::tlb;
use portico_core::vmid::{VmidAllocator, VmidTag};

static ALLOCATOR: Lock<VmidAllocator> = Lock::new(VmidAllocator::new());
static GENERATION: AtomicU64 = AtomicU64::new(1);

/// Makes sure that `domain` has a VMID of the current generation and says that this pCPU uses it. Returns VTTBR_EL2.
pub fn activate(pcpu: &Pcpu, domain: Ref<Domain>) -> u64 {
    if let Some(vttbr) = if_current(pcpu, domain) {
        return vttbr;
    }
    let tag = assign(pcpu, domain);
    if pcpu.vmid_generation.load(Ordering::Relaxed) != tag.generation() {
        // Entries of the generations before may carry numbers that now belong to others.
        tlb::el1_all_local();
        pcpu.vmid_generation.store(tag.generation(), Ordering::Release);
    }
    vttbr(domain, tag)
}

/// [`activate`] if the domain has such a VMID, and this pCPU is in its generation.
///
/// The vCPU that is still loaded here may lose its VMID to another domain from now on: what is cached of it then goes before this pCPU
/// enters the next generation.
#[inline(always)]
pub fn if_current(pcpu: &Pcpu, domain: Ref<Domain>) -> Option<u64> {
    let tag = VmidTag(domain.vmid.load(Ordering::Relaxed));
    pcpu.active_vmid.store(tag.0, Ordering::Relaxed);
    // Pairs with the fence in `assign`: either it sees our tag as active, or we see its new generation.
    fence(Ordering::SeqCst);
    let generation = GENERATION.load(Ordering::Relaxed);
    let fits = tag.generation() == generation && pcpu.vmid_generation.load(Ordering::Relaxed) == generation;
    fits.then(|| vttbr(domain, tag))
}

/// VTTBR_EL2 of a domain with the VMID that it had last: what its TLB entries carry.
pub fn last_vttbr(domain: Ref<Domain>) -> u64 {
    vttbr(domain, VmidTag(domain.vmid.load(Ordering::Acquire)))
}

fn vttbr(domain: Ref<Domain>, tag: VmidTag) -> u64 {
    domain.stage2_root.raw() | u64::from(tag.vmid()) << 48
}

#[cold]
fn assign(pcpu: &Pcpu, domain: Ref<Domain>) -> VmidTag {
    let mut allocator = ALLOCATOR.lock();
    let tag = VmidTag(domain.vmid.load(Ordering::Acquire));
    // No pCPU may pass its fast path between our reading what is active and the generation that follows from it: generation 0 is
    // nobody's, so whoever looks now comes here and waits for the lock.
    GENERATION.store(0, Ordering::SeqCst);
    fence(Ordering::SeqCst);
    let mut active = [VmidTag::NONE; MAX_PCPUS];
    for (index, slot) in active.iter_mut().enumerate() {
        if index != pcpu.index() {
            *slot = VmidTag(percpu::of(index).active_vmid.load(Ordering::SeqCst));
        }
    }
    let assigned = allocator.assign(tag, &active);
    domain.vmid.store(assigned.0, Ordering::Release);
    pcpu.active_vmid.store(assigned.0, Ordering::SeqCst);
    GENERATION.store(allocator.generation(), Ordering::SeqCst);
    assigned
}
