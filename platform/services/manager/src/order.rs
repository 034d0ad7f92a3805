//! In which order guests start: those that others depend on come first.

use alloc::vec;
use alloc::vec::Vec;

/// Guests that wait for each other in a circle, by index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cycle(pub Vec<usize>);

/// Orders `count` guests so that each comes after all that it depends on; otherwise they keep the order of
/// the description. An index out of range is ignored: the description's validator reports it.
///
/// # Errors
/// [`Cycle`] with every guest that could not be placed.
pub fn start_order<'a>(
    count: usize,
    mut depends: impl FnMut(usize) -> &'a [u32],
) -> Result<Vec<usize>, Cycle> {
    let mut placed = vec![false; count];
    let mut order = Vec::with_capacity(count);
    while order.len() < count {
        let next = (0..count).find(|&guest| {
            !placed.get(guest).copied().unwrap_or(true)
                && depends(guest)
                    .iter()
                    .all(|&other| placed.get(other as usize).copied().unwrap_or(true))
        });
        let Some(guest) = next else {
            let left = (0..count).filter(|&guest| placed.get(guest) == Some(&false)).collect();
            return Err(Cycle(left));
        };
        if let Some(slot) = placed.get_mut(guest) {
            *slot = true;
        }
        order.push(guest);
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::{Cycle, start_order};

    fn order(depends: &[&[u32]]) -> Result<alloc::vec::Vec<usize>, Cycle> {
        start_order(depends.len(), |guest| depends[guest])
    }

    #[test]
    fn keeps_the_order_of_the_description_where_it_can() {
        assert_eq!(order(&[&[], &[], &[]]), Ok([0, 1, 2].into()));
        assert_eq!(order(&[&[2], &[], &[]]), Ok([1, 2, 0].into()));
        assert_eq!(order(&[&[1], &[2], &[]]), Ok([2, 1, 0].into()));
        assert_eq!(order(&[]), Ok([].into()));
    }

    #[test]
    fn reports_circles_and_ignores_unknown_guests() {
        assert_eq!(order(&[&[1], &[0], &[]]), Err(Cycle([0, 1].into())));
        assert_eq!(order(&[&[0]]), Err(Cycle([0].into())));
        assert_eq!(order(&[&[99]]), Ok([0].into()));
    }
}
