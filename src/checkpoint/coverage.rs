//! Which bytes of a tensor have been written.

use std::sync::{Mutex, PoisonError};

/// Ranges that were written, apart from each other and in order. Pieces come almost in order, so there are few.
#[derive(Debug, Default)]
pub(super) struct Coverage(Mutex<Vec<(u64, u64)>>);

impl Coverage {
    /// Notes that the bytes from `begin` to `end` are written; they may have been before.
    pub(super) fn add(&self, begin: u64, end: u64) {
        if begin < end {
            join(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), begin, end);
        }
    }

    /// The first byte of `bytes` that has not been written.
    pub(super) fn gap(&self, bytes: u64) -> Option<u64> {
        let ranges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reached = ranges.first().filter(|range| range.0 == 0).map_or(0, |range| range.1);
        (reached < bytes).then_some(reached)
    }
}

/// Adds a range to those that are apart from each other and in order.
pub(super) fn join<T: Copy + Ord>(ranges: &mut Vec<(T, T)>, mut begin: T, mut end: T) {
    let from = ranges.partition_point(|range| range.1 < begin);
    let to = ranges.partition_point(|range| range.0 <= end);
    for range in &ranges[from..to] {
        (begin, end) = (begin.min(range.0), end.max(range.1));
    }
    ranges.splice(from..to, [(begin, end)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join() {
        let ranges = Coverage::default();
        for (range, gap) in
            [((4, 6), 0), ((0, 2), 2), ((8, 10), 2), ((9, 9), 2), ((1, 4), 6), ((0, 3), 6), ((5, 9), 10)]
        {
            ranges.add(range.0, range.1);
            assert_eq!(ranges.gap(12), Some(gap), "{range:?}");
        }
        ranges.add(10, 12);
        assert_eq!(ranges.gap(12), None);
        assert_eq!(Coverage::default().gap(0), None);
    }
}
