//! A binary heap of keys with a position for each id.
//!
//! Insert, remove by id and pop are O(log n); nothing is allocated.

const NOWHERE: u16 = u16::MAX;

/// The heap, for ids below `N` (at most 65534), each at most once.
pub(super) struct Heap<const N: usize> {
    keys: [u64; N],
    ids: [u16; N],
    position: [u16; N],
    len: usize,
}

impl<const N: usize> Heap<N> {
    pub(super) const fn new() -> Self {
        assert!(N < NOWHERE as usize);
        Self { keys: [0; N], ids: [0; N], position: [NOWHERE; N], len: 0 }
    }

    #[inline(always)]
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The least key and its id.
    #[inline(always)]
    pub(super) fn first(&self) -> Option<(u64, u16)> {
        self.at(0)
    }

    /// The entry at place `index`, in heap order.
    #[inline(always)]
    pub(super) fn at(&self, index: usize) -> Option<(u64, u16)> {
        if index < self.len { Some((*self.keys.get(index)?, *self.ids.get(index)?)) } else { None }
    }

    /// The key of an id, if it is in the heap.
    #[inline(always)]
    pub(super) fn key_of(&self, id: u16) -> Option<u64> {
        self.keys.get(self.slot_of(id)?).copied()
    }

    #[inline(always)]
    fn slot_of(&self, id: u16) -> Option<usize> {
        self.position.get(usize::from(id)).filter(|slot| **slot != NOWHERE).map(|slot| usize::from(*slot))
    }

    /// Inserts an id. False if it is there already or not below `N`.
    #[inline(always)]
    pub(super) fn insert(&mut self, key: u64, id: u16) -> bool {
        if self.position.get(usize::from(id)) != Some(&NOWHERE) {
            return false;
        }
        let last = self.len;
        self.len += 1;
        self.up(last, key, id);
        true
    }

    /// Removes an id. False if it is not there.
    #[inline(always)]
    pub(super) fn remove(&mut self, id: u16) -> bool {
        let Some(slot) = self.slot_of(id) else { return false };
        if let Some(position) = self.position.get_mut(usize::from(id)) {
            *position = NOWHERE;
        }
        self.len -= 1;
        if slot != self.len
            && let (Some(key), Some(last)) = (self.keys.get(self.len), self.ids.get(self.len))
        {
            let (key, id) = (*key, *last);
            // What has nothing below it, as in a heap of two, need not look there.
            if self.at(2 * slot + 1).is_some() { self.down(slot, key, id) } else { self.up(slot, key, id) }
        }
        true
    }

    /// Gives the free place `slot` to an entry, or one above or below where it belongs.
    #[inline(never)]
    fn down(&mut self, slot: usize, key: u64, id: u16) {
        let mut free = slot;
        loop {
            let left = 2 * free + 1;
            let Some(mut least) = self.at(left) else { break };
            let mut child = left;
            if let Some(right) = self.at(left + 1)
                && right.0 < least.0
            {
                (least, child) = (right, left + 1);
            }
            if key <= least.0 {
                break;
            }
            self.put(free, least.0, least.1);
            free = child;
        }
        self.up(free, key, id);
    }

    /// Gives the free place `slot`, or one above, to an entry that is not greater than those below it.
    #[inline(always)]
    fn up(&mut self, slot: usize, key: u64, id: u16) {
        let mut free = slot;
        while free > 0
            && let Some((parent, parent_id)) = self.at((free - 1) / 2)
            && key < parent
        {
            self.put(free, parent, parent_id);
            free = (free - 1) / 2;
        }
        self.put(free, key, id);
    }

    #[inline(always)]
    fn put(&mut self, slot: usize, key: u64, id: u16) {
        if let (Some(k), Some(i), Some(p)) =
            (self.keys.get_mut(slot), self.ids.get_mut(slot), self.position.get_mut(usize::from(id)))
        {
            (*k, *i, *p) = (key, id, slot as u16);
        }
    }
}
