//! The console ring's indices, which the guest can set to anything.
//!
//! Both rings of a console window are free-running 32-bit indices. The manager keeps its own index privately and
//! never reads it back; the guest's index is copied once and believed only if it is possible. A guest
//! that lies is put right: what it claims is dropped, and its ring goes on from where it says it is.

/// What can be read from an output ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readable {
    /// So many bytes, in one run from `start` (offset in the ring); there may be more behind the wrap.
    Run {
        /// Offset of the first byte.
        start: usize,
        /// Length, at least 1.
        len: usize,
    },
    /// Nothing.
    Empty,
    /// The guest's index is impossible: more bytes than the ring holds. Skip to its index.
    Lie,
}

/// What to read between the private `tail` and the guest's `head`, at most `limit` bytes. `size` is a power of two.
pub fn readable(head: u32, tail: u32, size: usize, limit: usize) -> Readable {
    let fill = head.wrapping_sub(tail) as usize;
    if fill > size {
        return Readable::Lie;
    }
    run(tail, fill, size, limit).map_or(Readable::Empty, |(start, len)| Readable::Run { start, len })
}

/// Where up to `wanted` bytes can be written behind the private `head`, given the guest's `tail`: offset and
/// length of one run. `None` if the ring is full, or if the guest's index is impossible.
pub fn writable(head: u32, tail: u32, size: usize, wanted: usize) -> Option<(usize, usize)> {
    let fill = head.wrapping_sub(tail) as usize;
    run(head, size.checked_sub(fill)?, size, wanted)
}

fn run(index: u32, available: usize, size: usize, limit: usize) -> Option<(usize, usize)> {
    let start = index as usize & size.checked_sub(1)?;
    let len = available.min(size - start).min(limit);
    (len > 0).then_some((start, len))
}

#[cfg(test)]
mod tests {
    use super::{Readable, readable, writable};
    use proptest::prelude::*;

    #[test]
    fn wraps_of_ring_and_index() {
        assert_eq!(readable(10, 10, 16, 99), Readable::Empty);
        assert_eq!(readable(20, 10, 16, 99), Readable::Run { start: 10, len: 6 });
        assert_eq!(readable(26, 10, 16, 4), Readable::Run { start: 10, len: 4 });
        assert_eq!(readable(27, 10, 16, 99), Readable::Lie);
        assert_eq!(readable(9, 10, 16, 99), Readable::Lie);
        assert_eq!(readable(3, u32::MAX, 16, 99), Readable::Run { start: 15, len: 1 });
        assert_eq!(writable(16, 0, 16, 5), None);
        assert_eq!(writable(17, 0, 16, 5), None);
        assert_eq!(writable(0, 0, 16, 5), Some((0, 5)));
        assert_eq!(writable(14, 10, 16, 5), Some((14, 2)));
    }

    proptest! {
        #[test]
        fn a_run_is_always_inside(head: u32, tail: u32, limit in 0usize..100) {
            if let Readable::Run { start, len } = readable(head, tail, 64, limit) {
                prop_assert!(start + len <= 64 && len <= limit);
            }
            if let Some((start, len)) = writable(head, tail, 64, limit) {
                prop_assert!(start + len <= 64 && len <= limit);
            }
        }
    }
}
