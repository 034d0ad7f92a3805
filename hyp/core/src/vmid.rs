//! VMIDs by generation.
//!
//! There are 255 usable VMIDs of 8 bits (0 is for "no guest") and there may be more domains. A domain keeps a [`VmidTag`];
//! if its generation is the current one it can be used as it is, else it is assigned anew. When the numbers run out the generation
//! changes: numbers in use on a pCPU at that moment stay with their domains, all others are free again, and every
//! pCPU must invalidate its own stage-1 and stage-2 entries of all VMIDs before it enters a guest with a number of
//! the new generation. Keeping the running ones is what makes broadcast invalidation by a guest with several vCPUs reach
//! all of them: a domain never runs under two numbers.
//!
//! The caller holds the VMID lock around [`VmidAllocator::assign`].

/// Generation in bits 63:8, VMID in bits 7:0. Zero is "never assigned".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct VmidTag(u64);

impl VmidTag {
    /// Never assigned.
    pub const NONE: VmidTag = VmidTag(0);

    /// Wraps a stored tag.
    #[inline(always)]
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The value to store.
    #[inline(always)]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The number for VTTBR_EL2.VMID.
    #[inline(always)]
    pub const fn vmid(self) -> u8 {
        self.0 as u8
    }

    /// The generation.
    #[inline(always)]
    pub const fn generation(self) -> u64 {
        self.0 >> 8
    }
}

/// Answer of [`VmidAllocator::assign`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The domain's tag from now on.
    pub tag: VmidTag,
    /// The generation changed: every pCPU must invalidate locally before it next enters a guest.
    pub rolled_over: bool,
}

/// Hands out VMIDs.
#[derive(Clone, Debug)]
pub struct VmidAllocator {
    generation: u64,
    taken: [u64; 4],
}

impl Default for VmidAllocator {
    fn default() -> Self {
        Self::new()
    }
}

impl VmidAllocator {
    /// All numbers free, generation 1.
    pub const fn new() -> Self {
        Self { generation: 1, taken: [1, 0, 0, 0] }
    }

    /// The current generation.
    #[inline(always)]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Says whether a tag can be used as it is.
    #[inline(always)]
    pub const fn is_current(&self, tag: VmidTag) -> bool {
        tag.0 >> 8 == self.generation
    }

    /// Assigns a number to the domain that has `tag` now. `active` are the tags with which each pCPU runs a guest, or whose
    /// context it still has loaded; pCPUs without one give [`VmidTag::NONE`].
    pub fn assign(&mut self, tag: VmidTag, active: &[VmidTag]) -> Assigned {
        if self.is_current(tag) {
            return Assigned { tag, rolled_over: false };
        }
        if let Some(vmid) = self.take() {
            return Assigned { tag: self.tag(vmid), rolled_over: false };
        }
        self.generation += 1;
        self.taken = [1, 0, 0, 0];
        let mut kept = false;
        for running in active {
            if running.vmid() != 0 {
                self.mark(running.vmid());
                kept |= *running == tag;
            }
        }
        if kept {
            return Assigned { tag: self.tag(tag.vmid()), rolled_over: true };
        }
        // At most one number for each pCPU is kept, so one is free; 255 only if the caller breaks that.
        let vmid = self.take().unwrap_or(255);
        Assigned { tag: self.tag(vmid), rolled_over: true }
    }

    const fn tag(&self, vmid: u8) -> VmidTag {
        VmidTag(self.generation << 8 | vmid as u64)
    }

    fn mark(&mut self, vmid: u8) {
        if let Some(word) = self.taken.get_mut(usize::from(vmid >> 6)) {
            *word |= 1 << (vmid & 63);
        }
    }

    fn take(&mut self) -> Option<u8> {
        for (index, word) in self.taken.iter_mut().enumerate() {
            if *word != u64::MAX {
                let bit = word.trailing_ones();
                *word |= 1 << bit;
                return Some((index as u32 * 64 + bit) as u8);
            }
        }
        None
    }
}
