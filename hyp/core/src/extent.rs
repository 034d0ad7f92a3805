//! Arithmetic and checks for extents and grants. No state: the objects are the caller's.

use crate::addr::PaRange;
use crate::stage2::Attrs;
use portico_abi::{Rights, Status};

/// Widest physical address that an extent may have, in bits.
pub const PA_BITS: u32 = 48;

/// The part of `whole` that begins `offset` pages into it and is `pages` long.
///
/// # Errors
/// `Invalid` if the part is empty or not inside.
pub fn part(whole: PaRange, offset: u64, pages: u64) -> Result<PaRange, Status> {
    // `skip` and `take` compare before they add, so no claim of a guest can wrap.
    whole.skip(offset).and_then(|rest| rest.take(pages)).ok_or(Status::Invalid)
}

/// Cuts a range at `offset` pages: lower and upper part.
///
/// # Errors
/// `Invalid` if either part would be empty.
pub fn split(whole: PaRange, offset: u64) -> Result<(PaRange, PaRange), Status> {
    match (whole.take(offset), whole.skip(offset)) {
        (Some(lower), Some(upper)) => Ok((lower, upper)),
        _ => Err(Status::Invalid),
    }
}

/// Joins two ranges.
///
/// # Errors
/// `Invalid` if `second` does not begin where `first` ends.
pub fn merge(first: PaRange, second: PaRange) -> Result<PaRange, Status> {
    if first.end() != second.first() {
        return Err(Status::Invalid);
    }
    let pages = first.pages().checked_add(second.pages()).ok_or(Status::Invalid)?;
    PaRange::new(first.first().raw(), pages, PA_BITS).ok_or(Status::Invalid)
}

/// Checks the attributes of a lending or a mapping.
///
/// `limit` is what the extent or grant allows; `rights` are those of the handle.
///
/// # Errors
/// `Invalid` for an unknown bit or the wrong memory type, `NoRights` for more than the limit or a missing `WRITE`.
pub fn checked_attrs(raw: u64, limit: Attrs, rights: Rights) -> Result<Attrs, Status> {
    let wanted = Attrs::from_abi(raw).ok_or(Status::Invalid)?;
    if wanted.is_device() != limit.is_device() {
        return Err(Status::Invalid);
    }
    if !wanted.within(limit) || (wanted.can_write() && !rights.contains(Rights::WRITE)) {
        return Err(Status::NoRights);
    }
    Ok(wanted)
}

/// Rights of a grant's handle: those to map and inspect, and `WRITE` only if it was lent writable.
pub const fn grant_rights(attrs: Attrs) -> Rights {
    let base = Rights::INSPECT.union(Rights::MAP);
    if attrs.can_write() { base.union(Rights::WRITE) } else { base }
}

#[cfg(test)]
mod tests {
    use super::{PA_BITS, checked_attrs, grant_rights, merge, part, split};
    use crate::addr::PaRange;
    use crate::stage2::Attrs;
    use portico_abi::call::attrs;
    use portico_abi::{Rights, Status};
    use proptest::prelude::*;

    #[test]
    fn attributes() {
        let all = Rights::all();
        let ram = Attrs::READ_WRITE_EXEC;
        assert_eq!(checked_attrs(attrs::WRITE, ram, all), Ok(Attrs::READ_WRITE));
        assert_eq!(checked_attrs(0, ram, Rights::MAP), Ok(Attrs::READ));
        assert_eq!(checked_attrs(attrs::WRITE, ram, Rights::MAP), Err(Status::NoRights));
        assert_eq!(checked_attrs(attrs::WRITE, Attrs::READ, all), Err(Status::NoRights));
        assert_eq!(checked_attrs(attrs::EXEC, Attrs::READ_WRITE, all), Err(Status::NoRights));
        assert_eq!(checked_attrs(attrs::DEVICE, ram, all), Err(Status::Invalid));
        assert_eq!(checked_attrs(attrs::READ, Attrs::DEVICE, all), Err(Status::Invalid));
        assert_eq!(checked_attrs(attrs::DEVICE | attrs::EXEC, Attrs::DEVICE, all), Err(Status::Invalid));
        assert_eq!(checked_attrs(1 << 4, ram, all), Err(Status::Invalid));
        assert_eq!(checked_attrs(1 << 63, ram, all), Err(Status::Invalid));
        assert!(!grant_rights(Attrs::READ).intersects(Rights::WRITE | Rights::OWN | Rights::SHARE | Rights::DONATE));
    }

    proptest! {
        #[test]
        fn cut_and_join(first in 0u64..1 << 20, pages in 1u64..1 << 20, offset: u64, len: u64, small: bool) {
            let whole = PaRange::new(first << 12, pages, PA_BITS).unwrap();
            let (offset, len) = if small { (offset % (2 << 20), len % (2 << 20)) } else { (offset, len) };
            let fits = len > 0 && u128::from(offset) + u128::from(len) <= u128::from(pages);
            let found = part(whole, offset, len);
            prop_assert_eq!(found.is_ok(), fits);
            if let Ok(found) = found {
                prop_assert_eq!(found.first().raw(), whole.first().raw() + (offset << 12));
                prop_assert_eq!(found.pages(), len);
            }
            match split(whole, offset) {
                Ok((lower, upper)) => {
                    prop_assert_eq!(merge(lower, upper), Ok(whole));
                    prop_assert_eq!(merge(upper, lower), Err(Status::Invalid));
                }
                Err(_) => prop_assert!(offset == 0 || offset >= pages),
            }
        }
    }
}
