//! What a card says of itself, and how it is spoken to.

/// Bytes of a block: the only length that is used for data.
pub const BLOCK: usize = 512;

/// Bits of a card's status, the response R1. (PHYS, "Card Status")
pub mod r1 {
    /// It is locked by a password.
    pub const LOCKED: u32 = 1 << 25;
    /// What makes a transfer fail: a wrong address, write protection, errors of the card. Not "out of range", which a card may say of the
    /// block behind its last, and not what it says of the command before.
    pub const ERRORS: u32 = 1 << 30 | 1 << 29 | 1 << 26 | LOCKED | 1 << 21 | 1 << 20 | 1 << 19;
    /// It takes data.
    pub const READY: u32 = 1 << 8;
    /// The state `tran`: it waits for commands.
    pub const TRANSFER: u32 = 4;

    /// The state it was in.
    pub const fn state(status: u32) -> u32 {
        status >> 9 & 0xf
    }
}

/// Bits of the operation conditions. (PHYS, "OCR Register")
pub mod ocr {
    /// 2.7 V to 3.6 V.
    pub const VOLTAGES: u32 = 0x00ff_8000;
    /// It is addressed by blocks; in an argument: the host can.
    pub const BLOCKS: u32 = 1 << 30;
    /// It is ready.
    pub const READY: u32 = 1 << 31;
}

/// What the response to CMD8 must repeat: 3.3 V, and a pattern. (PHYS, "SEND_IF_COND")
pub const CONDITION: u32 = 0x1aa;
/// Argument of CMD6 that selects high speed, and nothing else. (PHYS, "Switch Function Command")
pub const SELECT_HIGH_SPEED: u32 = 0x80ff_fff1;

/// A response of 128 bits whose bits 0 to 7 the controller has dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Long(pub [u32; 4]);

impl Long {
    /// Bits `high` to `low`, at most 32, as the card's registers count them.
    fn bits(self, high: u32, low: u32) -> u32 {
        let all = self.0.iter().rev().fold(0_u128, |all, word| all << 32 | u128::from(*word)) << 8;
        ((all >> low) & ((1 << (high - low + 1)) - 1)) as u32
    }
}

/// What a card's CSD register says. (PHYS, "CSD Register")
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Csd {
    /// Size in blocks of 512 bytes.
    pub sectors: u64,
    /// It is write-protected, for now or for good.
    pub is_protected: bool,
    /// It knows CMD6.
    pub has_switch: bool,
}

impl Csd {
    /// Decodes it. `None` if the structure is not known: cards above 2 TiB need commands of their own.
    pub fn decode(csd: Long) -> Option<Csd> {
        let sectors = match csd.bits(127, 126) {
            0 => {
                let (size, multiplier) = (u64::from(csd.bits(73, 62)), csd.bits(49, 47));
                (size + 1) << (multiplier + 2) << csd.bits(83, 80) >> 9
            }
            1 => (u64::from(csd.bits(69, 48)) + 1) * 1024,
            _ => return None,
        };
        let is_protected = csd.bits(13, 12) != 0;
        (sectors > 0).then_some(Csd { sectors, is_protected, has_switch: csd.bits(84 + 10, 84 + 10) == 1 })
    }
}

/// What a card's SCR register says. (PHYS, "SCR Register")
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scr {
    /// It can use four data lines.
    pub has_four_lines: bool,
    /// It may know CMD6: version 1.10 or later.
    pub has_switch: bool,
}

impl Scr {
    /// Decodes it.
    pub fn decode(bytes: [u8; 8]) -> Scr {
        let [first, second, ..] = bytes;
        Scr { has_four_lines: second & 1 << 2 != 0, has_switch: first & 0xf >= 1 }
    }
}

/// Whether the status that CMD6 answers says that high speed was selected: the result of function group 1, bits 379 to 376 of 512, the first
/// byte of which are the highest.
pub fn is_high_speed(switch: &[u8; 64]) -> bool {
    switch.get(16).is_some_and(|byte| byte & 0xf == 1)
}

/// Bits of the clock control register that divide `base` to `most` Hz or less. (HOST, "Clock Control Register")
///
/// `version` 2 is the third, which divides by twice a number of 10 bits; those before, by powers of two.
pub fn divider(base: u32, most: u32, version: u32) -> u32 {
    let half = if base <= most { 0 } else { base.div_ceil(most.max(1).saturating_mul(2)) };
    if version >= 2 {
        let half = half.min(0x3ff);
        return (half & 0xff) << 8 | (half >> 8) << 6;
    }
    let half = if half == 0 { 0 } else { half.next_power_of_two().min(0x80) };
    half << 8
}

/// What a controller divides if its capabilities do not say. The firmware of a Raspberry Pi 4 sets 100 MHz; twice that is assumed, so that
/// a card is rather too slow than out of its limits.
pub const DEFAULT_BASE_HZ: u32 = 200_000_000;

/// The clock that a controller divides, by its capabilities: MHz in 8 bits, before version 3 in 6.
pub fn base_hz(capabilities: u32, version: u32) -> u32 {
    let mhz = capabilities >> 8 & if version >= 2 { 0xff } else { 0x3f };
    if mhz == 0 { DEFAULT_BASE_HZ } else { mhz * 1_000_000 }
}

#[cfg(test)]
mod tests {
    use super::{Csd, Long, Scr, base_hz, divider, is_high_speed};
    use proptest::prelude::{any, prop_assert, proptest};

    /// A register of 128 bits as the controller shows it.
    fn long(bits: u128) -> Long {
        let bits = bits >> 8;
        Long([bits as u32, (bits >> 32) as u32, (bits >> 64) as u32, (bits >> 96) as u32])
    }

    #[test]
    fn sizes_of_cards() {
        let small = 9_u128 << 80 | 4095 << 62 | 7 << 47;
        let csd = Csd::decode(long(small)).unwrap();
        assert_eq!((csd.sectors, csd.is_protected, csd.has_switch), (4096 * 512, false, false));
        let two_gib = 10_u128 << 80 | 4095 << 62 | 7 << 47 | 1 << 12;
        let csd = Csd::decode(long(two_gib)).unwrap();
        assert_eq!((csd.sectors << 9, csd.is_protected), (2 << 30, true));
        let large = 1_u128 << 126 | 0x5b5 << 84 | 0x3_ffff << 48;
        let csd = Csd::decode(long(large)).unwrap();
        assert_eq!((csd.sectors, csd.has_switch), ((0x3_ffff + 1) * 1024, true));
        assert_eq!(Csd::decode(long(2 << 126)), None);
    }

    #[test]
    fn what_cards_can_do() {
        assert_eq!(Scr::decode([2, 0x25, 0, 0, 0, 0, 0, 0]), Scr { has_four_lines: true, has_switch: true });
        assert_eq!(Scr::decode([0, 1, 0, 0, 0, 0, 0, 0]), Scr { has_four_lines: false, has_switch: false });
        let mut switch = [0; 64];
        assert!(!is_high_speed(&switch));
        switch[16] = 1;
        assert!(is_high_speed(&switch));
        switch[16] = 0xf;
        assert!(!is_high_speed(&switch));
    }

    #[test]
    fn clocks() {
        assert_eq!(base_hz(0x0521_34b4, 2), 52_000_000);
        assert_eq!(base_hz(0x45ee_0032, 2), super::DEFAULT_BASE_HZ);
        assert_eq!(divider(52_000_000, 400_000, 2), 65 << 8);
        assert_eq!(divider(200_000_000, 400_000, 2), 250 << 8);
        assert_eq!(divider(250_000_000, 400_000, 2), (313 & 0xff) << 8 | 1 << 6);
        assert_eq!(divider(52_000_000, 400_000, 1), 0x80 << 8);
        assert_eq!(divider(25_000_000, 25_000_000, 2), 0);
    }

    proptest! {
        #[test]
        fn no_card_is_too_fast(base in 1_u32..=255, most in 400_000_u32..=50_000_000) {
            let base = base * 1_000_000;
            let word = divider(base, most, 2);
            let half = word >> 8 & 0xff | (word >> 6 & 3) << 8;
            let hz = if half == 0 { base } else { base / (2 * half) };
            prop_assert!(hz <= most && word & 0x3f == 0);
        }

        #[test]
        fn whatever_a_card_says(words in any::<[u32; 4]>()) {
            if let Some(csd) = Csd::decode(Long(words)) {
                prop_assert!(csd.sectors > 0 && csd.sectors <= 1 << 32);
            }
        }
    }
}
