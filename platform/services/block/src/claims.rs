//! Who uses which part of a disk of the machine: no two guests get parts that overlap if one of them can write there.
//!
//! The description was checked for that where it shows it; where partitions are is known only when the disk is. A disk that is a partition also
//! claims the partition table, as one who reads it: who can write there decides what others get after the next restart.

use alloc::vec::Vec;

/// A range of a disk of the machine, and how it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Number of the disk of the machine.
    pub disk: usize,
    /// First sector.
    pub first: u64,
    /// Number of sectors.
    pub sectors: u64,
    /// It can be written.
    pub is_written: bool,
}

impl Claim {
    fn conflicts(&self, other: &Claim) -> bool {
        let is_apart = |a: &Claim, b: &Claim| a.first.saturating_add(a.sectors) <= b.first;
        self.disk == other.disk
            && (self.is_written || other.is_written)
            && !is_apart(self, other)
            && !is_apart(other, self)
    }
}

/// What was given to whom.
#[derive(Clone, Debug, Default)]
pub struct Claims<'a> {
    given: Vec<(&'a str, Claim)>,
}

impl<'a> Claims<'a> {
    /// Gives all of `claims` to a guest, which may share with itself.
    ///
    /// # Errors
    /// The name of the guest that has a part of that already; then nothing is given.
    pub fn give(&mut self, guest: &'a str, claims: &[Claim]) -> Result<(), &'a str> {
        let others = self.given.iter().filter(|(owner, _)| *owner != guest);
        for (owner, given) in others {
            if claims.iter().any(|claim| claim.conflicts(given)) {
                return Err(owner);
            }
        }
        self.given.extend(claims.iter().map(|claim| (guest, *claim)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Claim, Claims};
    use proptest::prelude::{any, prop_assert, proptest};

    const fn claim(first: u64, sectors: u64, is_written: bool) -> Claim {
        Claim { disk: 0, first, sectors, is_written }
    }

    #[test]
    fn who_writes_shares_with_nobody() {
        let mut claims = Claims::default();
        assert_eq!(claims.give("a", &[claim(100, 50, true)]), Ok(()));
        assert_eq!(claims.give("b", &[claim(149, 1, false)]), Err("a"));
        assert_eq!(claims.give("b", &[claim(0, 101, false)]), Err("a"));
        assert_eq!(claims.give("b", &[claim(150, 10, true)]), Ok(()), "what was refused was not given");
        assert_eq!(claims.give("b", &[claim(0, 100, false)]), Ok(()));
        assert_eq!(claims.give("c", &[claim(0, 100, false)]), Ok(()), "two that read");
        assert_eq!(claims.give("a", &[claim(120, 10, true)]), Ok(()), "with itself");
        assert_eq!(claims.give("c", &[Claim { disk: 1, ..claim(100, 50, true) }]), Ok(()), "another disk");
        assert_eq!(
            claims.give("c", &[claim(200, 1, true), claim(u64::MAX, u64::MAX, false), claim(5, 1, true)]),
            Err("b")
        );
    }

    #[test]
    fn who_writes_the_table_is_alone_with_the_partitions() {
        let mut claims = Claims::default();
        let partition = [claim(2048, 100, true), claim(1, 1, false), claim(2, 32, false)];
        assert_eq!(claims.give("a", &partition), Ok(()));
        assert_eq!(claims.give("b", &[claim(4096, 100, true), claim(1, 1, false), claim(2, 32, false)]), Ok(()));
        assert_eq!(claims.give("c", &[claim(0, 34, true)]), Err("a"));
    }

    proptest! {
        #[test]
        fn nothing_that_one_writes_is_anothers(wanted in proptest::collection::vec(
            (any::<bool>(), 0_u64..64, 1_u64..16, any::<bool>()), 0..12,
        )) {
            let mut claims = Claims::default();
            let mut writers = [[false; 80]; 2];
            let mut users = [[false; 80]; 2];
            for (is_second, first, sectors, is_written) in wanted {
                let (name, who) = if is_second { ("b", 1) } else { ("a", 0) };
                if claims.give(name, &[claim(first, sectors, is_written)]).is_ok() {
                    for sector in first..first + sectors {
                        users[who][sector as usize] = true;
                        writers[who][sector as usize] |= is_written;
                    }
                }
            }
            for sector in 0..80 {
                prop_assert!(!(writers[0][sector] && users[1][sector]));
                prop_assert!(!(writers[1][sector] && users[0][sector]));
            }
        }
    }
}
