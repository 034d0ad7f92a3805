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
pub struct VmidTag(pub u64);

impl VmidTag {
    /// Never assigned.
    pub const NONE: VmidTag = VmidTag(0);

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

/// Hands out VMIDs.
#[derive(Clone, Debug)]
pub struct VmidAllocator {
    generation: u64,
    /// For each number the generation in which its holder got it, 0 if it is free. A number is older than the current
    /// generation only if it was in use at each change since.
    since: [u64; 256],
    /// All numbers below are taken.
    next: usize,
}

impl VmidAllocator {
    /// All numbers free, generation 1.
    pub const fn new() -> Self {
        Self { generation: 1, since: [0; 256], next: 1 }
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

    /// Assigns a number to the domain that has `tag` now: its tag from now on. `active` are the tags with which each pCPU runs a guest, or
    /// whose context it still has loaded; pCPUs without one give [`VmidTag::NONE`].
    ///
    /// If the generation changes every pCPU must invalidate locally before it next enters a guest.
    pub fn assign(&mut self, tag: VmidTag, active: &[VmidTag]) -> VmidTag {
        if self.is_current(tag) {
            return tag;
        }
        if let Some(tag) = self.kept(tag).or_else(|| self.take()) {
            return tag;
        }
        self.roll_over(active);
        // At most one number for each pCPU is kept, so one is free.
        self.kept(tag).or_else(|| self.take()).unwrap_or(VmidTag(self.generation << 8 | 255))
    }

    fn roll_over(&mut self, active: &[VmidTag]) {
        self.generation += 1;
        self.next = 1;
        for (vmid, since) in self.since.iter_mut().enumerate() {
            let in_use = active.iter().any(|tag| usize::from(tag.vmid()) == vmid);
            if !in_use {
                *since = 0;
            }
        }
    }

    /// The domain's new tag if its number was kept for it over all changes since it got `tag`.
    fn kept(&self, tag: VmidTag) -> Option<VmidTag> {
        let since = self.since.get(usize::from(tag.vmid())).copied().unwrap_or(0);
        let is_holder = tag.vmid() != 0 && since != 0 && tag.generation() >= since;
        if is_holder { Some(VmidTag(self.generation << 8 | u64::from(tag.vmid()))) } else { None }
    }

    fn take(&mut self) -> Option<VmidTag> {
        let (vmid, since) = self.since.iter_mut().enumerate().skip(self.next).find(|(_, since)| **since == 0)?;
        *since = self.generation;
        self.next = vmid + 1;
        Some(VmidTag(self.generation << 8 | vmid as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::{VmidAllocator, VmidTag};
    use proptest::prelude::*;

    #[test]
    fn all_255_then_rollover() {
        let mut vmids = VmidAllocator::new();
        let mut seen = [false; 256];
        for _ in 0..255 {
            let tag = vmids.assign(VmidTag::NONE, &[]);
            assert!(vmids.generation() == 1 && vmids.is_current(tag) && !seen[usize::from(tag.vmid())]);
            seen[usize::from(tag.vmid())] = true;
        }
        assert!(!seen[0]);
        let again = vmids.assign(VmidTag::NONE, &[]);
        assert!(vmids.is_current(again) && again.vmid() != 0);
        assert_eq!(vmids.generation(), 2);
        assert!(!vmids.is_current(VmidTag::NONE));
    }

    proptest! {
        /// Domains on 4 pCPUs: no two that run at the same time share a number, and a running domain keeps its own.
        #[test]
        fn running_domains_differ(steps in prop::collection::vec((0usize..4, 0usize..600), 1..3000)) {
            let mut vmids = VmidAllocator::new();
            let mut tags = vec![VmidTag::NONE; 600];
            // Domain that each pCPU runs, and the number with which it entered.
            let mut running = [None::<(usize, VmidTag)>; 4];
            for (pcpu, domain) in steps {
                running[pcpu] = None;
                let active: Vec<VmidTag> = running.iter().map(|r| r.map_or(VmidTag::NONE, |(_, tag)| tag)).collect();
                let tag = vmids.assign(tags[domain], &active);
                tags[domain] = tag;
                running[pcpu] = Some((domain, tag));
                for (domain, entered) in running.iter().flatten() {
                    for (other, with) in running.iter().flatten() {
                        prop_assert_eq!(domain == other, entered.vmid() == with.vmid());
                    }
                }
            }
        }
    }
}
