//! Samples, and what is printed of them.

use alloc::vec::Vec;

/// The samples of one figure.
pub struct Samples {
    name: &'static str,
    ticks: Vec<u64>,
    skip: usize,
}

impl Samples {
    /// Makes room for `count` samples; the first `skip` more are thrown away: they fill TLBs and translation caches.
    pub fn new(name: &'static str, count: usize, skip: usize) -> Self {
        Self { name, ticks: Vec::with_capacity(count), skip }
    }

    /// How many samples are to be taken.
    pub fn wanted(&self) -> usize {
        self.ticks.capacity() + self.skip
    }

    /// Adds a sample.
    pub fn add(&mut self, ticks: u64) {
        if self.skip > 0 {
            self.skip -= 1;
        } else if self.ticks.len() < self.ticks.capacity() {
            self.ticks.push(ticks);
        }
    }

    /// The median of them.
    pub fn finish(mut self) -> Figure {
        self.ticks.sort_unstable();
        let at = |index: usize| self.ticks.get(index).copied().unwrap_or(0);
        let count = self.ticks.len();
        Figure { name: self.name, value: at(count / 2), least: at(0), most: at(count.saturating_sub(1)) }
    }

    /// How much longer all samples together took than `ideal` each, in parts of a million.
    pub fn finish_excess_ppm(self, ideal: u64) -> Figure {
        let excess = |ticks: u64| ticks.saturating_sub(ideal) * 1_000_000 / ideal;
        let count = self.ticks.len().max(1) as u64;
        let most = self.ticks.iter().copied().max().unwrap_or(0);
        let least = self.ticks.iter().copied().min().unwrap_or(0);
        let mean = self.ticks.iter().sum::<u64>() / count;
        Figure { name: self.name, value: excess(mean), least: excess(least), most: excess(most) }
    }
}

/// A figure of the table.
pub struct Figure {
    name: &'static str,
    value: u64,
    least: u64,
    most: u64,
}

impl Figure {
    /// Prints it for `cargo xtask bench`.
    pub fn print(&self) {
        portico_sdk::println!("BENCH {} {} {} {}", self.name, self.value, self.least, self.most);
    }
}
