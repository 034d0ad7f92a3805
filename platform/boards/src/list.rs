//! A short list in place: an array and how much of it is used.

use core::mem;

/// Up to `N` values, in order of insertion as long as none is taken out.
#[derive(Clone, Copy, Debug)]
pub struct List<T, const N: usize> {
    values: [T; N],
    len: usize,
}

impl<T: Copy + Default, const N: usize> List<T, N> {
    /// Takes out the first value that is `wanted`, and puts the last in its place.
    pub fn take(&mut self, wanted: impl FnMut(&T) -> bool) -> Option<T> {
        let index = self.iter().position(wanted)?;
        self.len -= 1;
        let last = *self.values.get(self.len)?;
        Some(mem::replace(self.values.get_mut(index)?, last))
    }

    /// Appends a value, or says that there is no room.
    #[must_use]
    pub fn push(&mut self, value: T) -> bool {
        match self.values.get_mut(self.len) {
            Some(slot) => {
                *slot = value;
                self.len += 1;
                true
            }
            None => false,
        }
    }
}

impl<T: Copy + Default, const N: usize> Default for List<T, N> {
    /// Makes an empty list.
    fn default() -> Self {
        Self { values: [T::default(); N], len: 0 }
    }
}

impl<T, const N: usize> core::ops::Deref for List<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.values.get(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::List;

    #[test]
    fn refuses_what_does_not_fit() {
        let mut list = List::<u8, 2>::default();
        assert!(list.push(1) && list.push(2) && !list.push(3));
        assert_eq!(&list[..], &[1, 2]);
    }
}
