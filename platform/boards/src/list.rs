//! A short list in place: an array and how much of it is used.

/// Up to `N` values, in order of insertion.
#[derive(Clone, Copy, Debug)]
pub struct List<T, const N: usize> {
    values: [T; N],
    len: usize,
}

impl<T: Copy + Default, const N: usize> List<T, N> {
    /// Takes out the value at `index`, if there is one, and puts the last in its place.
    pub fn swap_remove(&mut self, index: usize) {
        if index < self.len {
            self.len -= 1;
            if let (Some(last), Some(slot)) = (self.values.get(self.len).copied(), self.values.get_mut(index)) {
                *slot = last;
            }
        }
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

impl<T, const N: usize> core::ops::DerefMut for List<T, N> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.values.get_mut(..self.len).unwrap_or_default()
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
