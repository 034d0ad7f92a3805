//! How much of a pCPU is reserved.

use super::Class;

/// The reservations of one pCPU, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    permille: u32,
}

impl Admission {
    /// The most that can be reserved: the rest is for EL2, switches and the weighted class.
    pub const LIMIT_PERMILLE: u32 = 900;

    /// Nothing reserved.
    pub const fn new() -> Self {
        Self { permille: 0 }
    }

    /// Thousandths reserved.
    pub const fn permille(&self) -> u32 {
        self.permille
    }

    /// Reserves what `class` needs; nothing for the weighted class. False if that does not fit.
    pub const fn admit(&mut self, class: Class) -> bool {
        let fits = self.permille + class.permille() <= Self::LIMIT_PERMILLE;
        if fits {
            self.permille += class.permille();
        }
        fits
    }

    /// Takes a reservation back.
    pub const fn release(&mut self, class: Class) {
        self.permille = self.permille.saturating_sub(class.permille());
    }
}
