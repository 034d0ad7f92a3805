//! Two binary heaps over one set of slots, with a position for each id.
//!
//! An id is in at most one heap, so both share arrays of `N`: the ready heap grows from the low end, the throttled heap from the high
//! end. Insert, remove by id and pop are O(log n); nothing is allocated. The logic works on slices, so that
//! its code exists once whatever `N` is.

const NOWHERE: u16 = u16::MAX;

/// Which heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Ordered by scheduling key.
    Ready,
    /// Ordered by time of release.
    Throttled,
}

/// The two heaps, for ids below `N` (at most 65534).
pub(super) struct Heaps<const N: usize> {
    keys: [u64; N],
    ids: [u16; N],
    position: [u16; N],
    ready: usize,
    throttled: usize,
}

impl<const N: usize> Heaps<N> {
    pub(super) const fn new() -> Self {
        assert!(N < NOWHERE as usize);
        Self { keys: [0; N], ids: [0; N], position: [NOWHERE; N], ready: 0, throttled: 0 }
    }

    #[inline(always)]
    pub(super) const fn len(&self, side: Side) -> usize {
        match side {
            Side::Ready => self.ready,
            Side::Throttled => self.throttled,
        }
    }

    /// The least key and its id.
    #[inline(always)]
    pub(super) fn first(&self, side: Side) -> Option<(u64, u16)> {
        match side {
            Side::Ready if self.ready > 0 => self.at(0),
            Side::Throttled if self.throttled > 0 => self.at(N - 1),
            _ => None,
        }
    }

    /// The entry at place `index` of the ready heap, in heap order.
    #[inline]
    pub(super) fn ready_at(&self, index: usize) -> Option<(u64, u16)> {
        if index < self.ready { self.at(index) } else { None }
    }

    /// Says where an id is.
    pub(super) fn side_of(&self, id: u16) -> Option<Side> {
        match self.position.get(usize::from(id)) {
            None | Some(&NOWHERE) => None,
            Some(&slot) if usize::from(slot) < self.ready => Some(Side::Ready),
            Some(_) => Some(Side::Throttled),
        }
    }

    /// The key of an id, if it is in a heap.
    #[inline(always)]
    pub(super) fn key_of(&self, id: u16) -> Option<u64> {
        match self.position.get(usize::from(id)) {
            None | Some(&NOWHERE) => None,
            Some(&slot) => self.keys.get(usize::from(slot)).copied(),
        }
    }

    /// [`Heaps::insert`] among the ready, short if there are none.
    #[inline(always)]
    pub(super) fn insert_ready(&mut self, key: u64, id: u16) {
        if self.ready == 0
            && let (Some(k), Some(i), Some(p)) =
                (self.keys.first_mut(), self.ids.first_mut(), self.position.get_mut(usize::from(id)))
            && *p == NOWHERE
        {
            (*k, *i, *p) = (key, id, 0);
            self.ready = 1;
        } else {
            self.insert(Side::Ready, key, id);
        }
    }

    /// [`Heaps::insert`] among the ready, short if at most one is there and it comes first.
    #[inline]
    pub(super) fn insert_behind(&mut self, key: u64, id: u16) {
        if self.ready == 1
            && let ([first, k, ..], [_, i, ..]) = (&mut self.keys[..], &mut self.ids[..])
            && *first <= key
            && let Some(p) = self.position.get_mut(usize::from(id))
            && *p == NOWHERE
        {
            (*k, *i, *p) = (key, id, 1);
            self.ready = 2;
        } else {
            self.insert_ready(key, id);
        }
    }

    /// [`Heaps::remove`] of the first of the ready, short if there is only one.
    #[inline(always)]
    pub(super) fn remove_first(&mut self, id: u16) {
        if self.ready == 1
            && let (Some(&first), Some(p)) = (self.ids.first(), self.position.get_mut(usize::from(id)))
            && first == id
        {
            *p = NOWHERE;
            self.ready = 0;
        } else {
            self.remove_of_two(id);
        }
    }

    /// [`Heaps::remove`], short for the first of two that are ready.
    pub(super) fn remove_of_two(&mut self, id: u16) {
        if self.ready == 2
            && let ([first_key, second_key, ..], [first, second, ..]) = (&mut self.keys[..], &mut self.ids[..])
            && *first == id
            && usize::from(*second) < N
        {
            (*first_key, *first) = (*second_key, *second);
            self.ready = 1;
            let moved = usize::from(*second);
            if let Some(p) = self.position.get_mut(moved) {
                *p = 0;
            }
            if let Some(p) = self.position.get_mut(usize::from(id)) {
                *p = NOWHERE;
            }
        } else {
            self.remove(id);
        }
    }

    /// Inserts an id that is in neither heap. False if it is in one already or not below `N`.
    pub(super) fn insert(&mut self, side: Side, key: u64, id: u16) -> bool {
        if self.position.get(usize::from(id)) != Some(&NOWHERE) {
            return false;
        }
        let len = self.len(side) + 1;
        self.set_len(side, len);
        let mut view = self.view(side);
        view.put(len - 1, key, id);
        view.up(len - 1);
        true
    }

    /// Removes an id from the heap that it is in. False if it is in none.
    pub(super) fn remove(&mut self, id: u16) -> bool {
        let Some(side) = self.side_of(id) else { return false };
        let slot = usize::from(self.position.get(usize::from(id)).copied().unwrap_or(0));
        let mut view = self.view(side);
        let index = view.slot(slot);
        let last = view.len - 1;
        view.forget(id);
        if index != last {
            let (key, moved) = view.get(last);
            view.put(index, key, moved);
            view.len = last;
            view.down(index);
            view.up(index);
        }
        self.set_len(side, last);
        true
    }

    fn at(&self, slot: usize) -> Option<(u64, u16)> {
        Some((*self.keys.get(slot)?, *self.ids.get(slot)?))
    }

    fn set_len(&mut self, side: Side, len: usize) {
        match side {
            Side::Ready => self.ready = len,
            Side::Throttled => self.throttled = len,
        }
    }

    fn view(&mut self, side: Side) -> View<'_> {
        let len = self.len(side);
        let top = match side {
            Side::Ready => None,
            Side::Throttled => Some(N - 1),
        };
        View { keys: &mut self.keys, ids: &mut self.ids, position: &mut self.position, len, top }
    }
}

/// One of the heaps, without its `N`.
struct View<'a> {
    keys: &'a mut [u64],
    ids: &'a mut [u16],
    position: &'a mut [u16],
    len: usize,
    /// The slot of index 0 if the heap grows downwards.
    top: Option<usize>,
}

impl View<'_> {
    /// Turns an index into a slot, or back: the map is its own inverse.
    #[inline(always)]
    fn slot(&self, index: usize) -> usize {
        match self.top {
            Some(top) => top.wrapping_sub(index),
            None => index,
        }
    }

    #[inline(always)]
    fn get(&self, index: usize) -> (u64, u16) {
        let slot = self.slot(index);
        (self.keys.get(slot).copied().unwrap_or(u64::MAX), self.ids.get(slot).copied().unwrap_or(0))
    }

    #[inline(always)]
    fn put(&mut self, index: usize, key: u64, id: u16) {
        let slot = self.slot(index);
        if let (Some(k), Some(i), Some(p)) =
            (self.keys.get_mut(slot), self.ids.get_mut(slot), self.position.get_mut(usize::from(id)))
        {
            *k = key;
            *i = id;
            *p = slot as u16;
        }
    }

    fn forget(&mut self, id: u16) {
        if let Some(position) = self.position.get_mut(usize::from(id)) {
            *position = NOWHERE;
        }
    }

    fn up(&mut self, mut index: usize) {
        let (key, id) = self.get(index);
        while index > 0 {
            let parent = (index - 1) / 2;
            let (parent_key, parent_id) = self.get(parent);
            if parent_key <= key {
                break;
            }
            self.put(index, parent_key, parent_id);
            index = parent;
        }
        self.put(index, key, id);
    }

    fn down(&mut self, mut index: usize) {
        let (key, id) = self.get(index);
        loop {
            let left = 2 * index + 1;
            if left >= self.len {
                break;
            }
            let right = left + 1;
            let child = if right < self.len && self.get(right).0 < self.get(left).0 { right } else { left };
            let (child_key, child_id) = self.get(child);
            if key <= child_key {
                break;
            }
            self.put(index, child_key, child_id);
            index = child;
        }
        self.put(index, key, id);
    }
}
