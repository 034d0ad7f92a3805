//! Ticks of the counter and nanoseconds.

/// Converts between ticks and nanoseconds by multiplication: `ns = ticks * mult >> shift`, in 128 bits.
///
/// `mult` has at least 31 significant bits where the frequency allows, so the error is below one part in 2^30.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickRate {
    hz: u32,
    mult: u32,
    shift: u32,
    ticks_per_ns: u64,
}

/// Fraction bits of `ticks_per_ns`.
const BACK_SHIFT: u32 = 32;
const NS: u64 = 1_000_000_000;

impl TickRate {
    /// Scaling for a counter of `hz`; a frequency of 0 counts as 1 Hz.
    pub const fn new(hz: u32) -> Self {
        let hz = if hz == 0 { 1 } else { hz };
        // The largest shift with which mult still fits 32 bits.
        let mut shift = 32;
        while shift > 0 && (NS << shift) / hz as u64 > u32::MAX as u64 {
            shift -= 1;
        }
        let mult = (NS << shift) / hz as u64;
        let ticks_per_ns = ((hz as u64) << BACK_SHIFT).div_ceil(NS);
        Self { hz, mult: mult as u32, shift, ticks_per_ns }
    }

    /// Frequency in Hz.
    pub const fn hz(self) -> u32 {
        self.hz
    }

    /// Multiplier of the information page.
    pub const fn mult(self) -> u32 {
        self.mult
    }

    /// Shift of the information page.
    pub const fn shift(self) -> u32 {
        self.shift
    }

    /// Ticks of a millisecond, at least 1.
    pub const fn ticks_per_ms(self) -> u64 {
        let ticks = self.hz as u64 / 1000;
        if ticks == 0 { 1 } else { ticks }
    }

    /// Nanoseconds of `ticks`, rounded down; saturates.
    #[inline]
    pub const fn to_ns(self, ticks: u64) -> u64 {
        // The product has 96 bits. In two halves, since a shift of 128 bits by a number that is not known is a call.
        let low = (ticks & u32::MAX as u64) * self.mult as u64;
        let high = (ticks >> 32) * self.mult as u64 + (low >> 32);
        if high.leading_zeros() < 32 - self.shift {
            return u64::MAX;
        }
        (high << (32 - self.shift)) + ((low & u32::MAX as u64) >> self.shift)
    }

    /// Ticks of `ns`, never fewer than asked for; saturates.
    #[inline]
    pub const fn to_ticks(self, ns: u64) -> u64 {
        let round = (1u128 << BACK_SHIFT) - 1;
        let ticks = (ns as u128 * self.ticks_per_ns as u128 + round) >> BACK_SHIFT;
        if ticks > u64::MAX as u128 { u64::MAX } else { ticks as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::TickRate;
    use proptest::prelude::*;

    proptest! {
        /// The halves come to the same as the whole.
        #[test]
        fn nanoseconds_are_those_of_the_product(hz in any::<u32>(), ticks in any::<u64>(), small in 0_u32..64) {
            let rate = TickRate::new(hz);
            let ticks = ticks >> small;
            let whole = (u128::from(ticks) * u128::from(rate.mult())) >> rate.shift();
            prop_assert_eq!(rate.to_ns(ticks), u64::try_from(whole).unwrap_or(u64::MAX));
        }
    }

    #[test]
    fn known_rates() {
        let ghz = TickRate::new(1_000_000_000);
        assert_eq!((ghz.to_ns(12345), ghz.to_ticks(12345), ghz.ticks_per_ms()), (12345, 12345, 1_000_000));
        let board = TickRate::new(54_000_000);
        assert_eq!(board.to_ns(54_000_000), 999_999_999);
        assert_eq!(board.to_ticks(1_000_000_000).div_ceil(10), 5_400_001);
        assert_eq!(TickRate::new(62_500_000).to_ns(62_500_000), 1_000_000_000);
        assert_eq!(TickRate::new(0).ticks_per_ms(), 1);
        assert!(TickRate::new(1).to_ticks(u64::MAX) > 18_000_000_000);
        assert_eq!(ghz.to_ns(u64::MAX), u64::MAX);
    }

    proptest! {
        #[test]
        fn close_to_exact(hz in 1_000_000u32..=1_000_000_000, ticks in 0u64..1 << 48) {
            let rate = TickRate::new(hz);
            let exact = u128::from(ticks) * 1_000_000_000 / u128::from(hz);
            let ns = rate.to_ns(ticks);
            prop_assert!(u128::from(ns) <= exact);
            prop_assert!(exact - u128::from(ns) <= exact / (1 << 30) + 1);
            let exact = (u128::from(ticks) * u128::from(hz)).div_ceil(1_000_000_000);
            prop_assert!(u128::from(rate.to_ticks(ticks)) >= exact);
        }
    }
}
