//! Addresses and numbers, each of its own type.
//!
//! There is no conversion between kinds: the only road from an [`Ipa`] to a [`Pa`] is the stage-2
//! walk, and a raw value enters or leaves a kind only by `new` and `raw`. Nothing here checks that an address
//! may be accessed.

use portico_abi::{PAGE_SHIFT, PAGE_SIZE};

macro_rules! number {
    ($($(#[doc = $doc:literal])* $name:ident($repr:ty);)*) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name($repr);

        impl $name {
            /// Wraps a raw value.
            #[inline(always)]
            pub const fn new(raw: $repr) -> Self {
                Self(raw)
            }

            /// The raw value.
            #[inline(always)]
            pub const fn raw(self) -> $repr {
                self.0
            }
        }
    )*};
}

number! {
    /// A physical address of the machine.
    Pa(u64);
    /// An intermediate physical address: what a domain sees as physical.
    Ipa(u64);
    /// Number of a domain in EL2's domain table.
    DomainId(u16);
}

impl Pa {
    /// Says whether it is a multiple of `align_bytes`, a power of two.
    #[inline(always)]
    pub const fn is_aligned(self, align_bytes: u64) -> bool {
        self.0 & align_bytes.wrapping_sub(1) == 0
    }
}

macro_rules! range {
    ($($(#[doc = $doc:literal])* $name:ident of $addr:ident;)*) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            first: $addr,
            pages: u64,
        }

        impl $name {
            /// Checks a claim: page-aligned, not empty, and wholly below `1 << bits`. `bits` is at most 52.
            pub const fn new(first: u64, pages: u64, bits: u32) -> Option<Self> {
                if bits > 52 || bits < PAGE_SHIFT || first & (PAGE_SIZE - 1) != 0 || pages == 0 {
                    return None;
                }
                let limit_pages = 1 << (bits - PAGE_SHIFT);
                let first_page = first >> PAGE_SHIFT;
                // No sum is formed before both terms are known to be below 2^40.
                if first_page >= limit_pages || pages > limit_pages - first_page {
                    return None;
                }
                Some(Self { first: $addr::new(first), pages })
            }

            /// First address.
            #[inline(always)]
            pub const fn first(self) -> $addr {
                self.first
            }

            /// Length in pages, never 0.
            #[inline(always)]
            pub const fn pages(self) -> u64 {
                self.pages
            }

            /// Length in bytes.
            #[inline(always)]
            pub const fn bytes(self) -> u64 {
                self.pages << PAGE_SHIFT
            }

            /// First address after it.
            #[inline(always)]
            pub const fn end(self) -> $addr {
                $addr::new(self.first.raw() + self.bytes())
            }

            /// Says whether the two share a page.
            pub const fn overlaps(self, other: Self) -> bool {
                self.first.raw() < other.end().raw() && other.first.raw() < self.end().raw()
            }

            /// What is left after the first `done` pages; `None` if that is nothing.
            pub const fn skip(self, done: u64) -> Option<Self> {
                if done >= self.pages {
                    return None;
                }
                let first = $addr::new(self.first.raw() + (done << PAGE_SHIFT));
                Some(Self { first, pages: self.pages - done })
            }

            /// The first `pages` pages of it; `None` for 0 or more than it has.
            pub const fn take(self, pages: u64) -> Option<Self> {
                if pages == 0 || pages > self.pages { None } else { Some(Self { first: self.first, pages }) }
            }
        }
    )*};
}

range! {
    /// A page-aligned, non-empty range of intermediate physical addresses that does not wrap.
    IpaRange of Ipa;
    /// A page-aligned, non-empty range of physical addresses that does not wrap.
    PaRange of Pa;
}

#[cfg(test)]
mod tests {
    use super::{IpaRange, PaRange};
    use proptest::prelude::*;

    #[test]
    fn top_of_space() {
        assert!(IpaRange::new(0xffff_f000, 1, 32).is_some());
        assert!(IpaRange::new(0xffff_f000, 2, 32).is_none());
        assert!(IpaRange::new(0x1_0000_0000, 1, 32).is_none());
        assert!(IpaRange::new(!0xfff, 1, 39).is_none());
        assert!(IpaRange::new(0x1000, u64::MAX, 39).is_none());
        assert!(IpaRange::new(0x1000, (1 << 52) - 1, 39).is_none());
        assert!(IpaRange::new(0, 0, 39).is_none());
        assert!(IpaRange::new(1, 1, 39).is_none());
        assert!(IpaRange::new(0, 1 << 27, 39).is_some());
        assert!(PaRange::new(0, 1 << 40, 52).is_some());
        assert!(PaRange::new(0, 1, 53).is_none());
        assert!(IpaRange::new(1 << 38, 1 << 52, 39).is_none());
        assert!(IpaRange::new(1 << 38, 1 << 26, 39).is_some());
    }

    proptest! {
        #[test]
        fn range_is_exact(first: u64, pages: u64, bits in 12u32..=52) {
            let first = first >> 8;
            let end = u128::from(first) + u128::from(pages) * 4096;
            let fits = first % 4096 == 0 && pages > 0 && end <= 1u128 << bits;
            let range = IpaRange::new(first, pages, bits);
            prop_assert_eq!(range.is_some(), fits);
            if let Some(range) = range {
                prop_assert_eq!(u128::from(range.end().raw()), end);
                prop_assert!(range.overlaps(range));
                prop_assert_eq!(range.skip(range.pages()), None);
            }
        }
    }
}
