//! Exact selection of the largest magnitudes of a whole tensor, by a radix search over its blocks.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;
use crate::kernels::histogram::{BINS, DIGITS};
use crate::kernels::trim::Threshold;
use crate::kernels::{delta, histogram, variance};
use crate::recording::{Buf, Recording, Role, Size};
use crate::stack::Stack;
use crate::stream::Stream;

/// Of what the largest are sought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Every expert's task vector.
    Experts,
    /// The variance over the experts.
    Variance,
}

impl Source {
    /// A list that hands back plane `k`.
    fn plane(self, stream: &Stream<'_>, k: usize) -> Recording {
        let tensor = stream.tensor;
        match self {
            Self::Experts => {
                let mut list = Recording::new(1);
                let base = list.input("base", 0, tensor.sources[0].dtype);
                let expert = list.input("expert", k + 1, tensor.sources[k + 1].dtype);
                let tau = list.result("tau", Size::Planes(1));
                delta::record(&mut list, base, expert, tau, 0);
                list
            }
            Self::Variance => {
                let (mut list, buf) = self.record(stream);
                list.buffers[buf.0].role = Role::Result;
                list
            }
        }
    }

    /// A list that computes it, and the buffer whose planes it is.
    fn record(self, stream: &Stream<'_>) -> (Recording, Buf) {
        let experts = stream.tensor.experts();
        // One plane more, as in the lists of merges: the variance is over all but the last.
        let mut list = Recording::new(experts as u32 + 1);
        let stack = Stack::record(&mut list, stream.tensor, experts);
        let buf = match self {
            Self::Experts => stack.tau,
            Self::Variance => {
                let variances = list.scratch("variances", Size::Planes(1));
                variance::record(&mut list, stack.tau, variances);
                variances
            }
        };
        (list, buf)
    }
}

/// The search for the k-th largest magnitude of one plane.
struct Search {
    /// Bits of the key that are known.
    prefix: u32,
    /// Entries still to be kept among those that start with `prefix`.
    wanted: u64,
    /// Entries that start with `prefix`.
    found: u64,
}

/// The thresholds that keep exactly `wanted[k]` entries of plane k of `source`, of equals those with the lower index.
/// Reads the tensor three times, and once more where equals are parted.
pub fn cuts(stream: &Stream<'_>, source: Source, wanted: &[u64]) -> Result<Vec<Threshold>> {
    let n = stream.tensor.elements;
    let search = |&wanted: &u64| (wanted > 0 && wanted < n).then_some(Search { prefix: 0, wanted, found: n });
    let mut searches: Vec<Option<Search>> = wanted.iter().map(search).collect();
    if searches.iter().any(Option::is_some) {
        for digit in DIGITS {
            let (mut list, buf) = source.record(stream);
            let bins = list.result("bins", Size::Fixed(BINS * list.planes));
            for (k, search) in searches.iter().enumerate() {
                if let Some(search) = search {
                    histogram::record(&mut list, buf, k as u32, search.prefix, digit, bins);
                }
            }
            // Summed as they come: a histogram for each block of a large tensor would not fit the memory.
            let totals: Vec<AtomicU64> = (0..BINS * list.planes).map(|_| AtomicU64::new(0)).collect();
            stream.map(&list, 0..stream.tensor.blocks(), |_, results| {
                for (total, &count) in totals.iter().zip(results.words(0)).filter(|(_, count)| **count > 0) {
                    total.fetch_add(u64::from(count), Ordering::Relaxed);
                }
                Ok(())
            })?;
            let totals: Vec<u64> = totals.into_iter().map(AtomicU64::into_inner).collect();
            for (search, bins) in searches.iter_mut().zip(totals.chunks(BINS as usize)) {
                if let Some(search) = search {
                    descend(search, bins, digit.bits);
                }
            }
        }
    }
    let ends = ends(stream, source, &searches)?;
    let threshold = |((search, end), &wanted): ((&Option<Search>, Option<u64>), &u64)| match search {
        Some(search) => Threshold::new(search.prefix, end.unwrap_or(u64::MAX)),
        None if wanted == 0 => Threshold::NOTHING,
        None => Threshold::EVERYTHING,
    };
    Ok(searches.iter().zip(ends).zip(wanted).map(threshold).collect())
}

/// Where some equals of the threshold stay and some go: the element of the tensor before which they stay.
fn ends(stream: &Stream<'_>, source: Source, searches: &[Option<Search>]) -> Result<Vec<Option<u64>>> {
    let split = |search: &Search| search.wanted < search.found && search.prefix > 0;
    if !searches.iter().flatten().any(split) {
        return Ok(vec![None; searches.len()]);
    }
    let (mut list, buf) = source.record(stream);
    let bins = list.result("bins", Size::Fixed(BINS * list.planes));
    let (digit, low) = (DIGITS[DIGITS.len() - 1], (1 << DIGITS[DIGITS.len() - 1].bits) - 1);
    for (k, search) in searches.iter().enumerate() {
        if let Some(search) = search {
            histogram::record(&mut list, buf, k as u32, search.prefix >> digit.bits, digit, bins);
        }
    }
    let blocks = stream.map(&list, 0..stream.tensor.blocks(), |_, results| {
        let equals = |(k, search): (usize, &Option<Search>)| {
            let bin = search.as_ref().map_or(0, |search| search.prefix & low);
            u64::from(results.words(0)[k * BINS as usize + bin as usize])
        };
        Ok(searches.iter().enumerate().map(equals).collect::<Vec<_>>())
    })?;
    let end = |(k, search): (usize, &Option<Search>)| {
        let Some(search) = search.as_ref().filter(|s| split(s)) else { return Ok(None) };
        let mut left = search.wanted;
        for (block, counts) in blocks.iter().enumerate() {
            if left <= counts[k] {
                return element(stream, source, k, block, search.prefix, left).map(Some);
            }
            left -= counts[k];
        }
        Ok(None)
    };
    searches.iter().enumerate().map(end).collect()
}

/// The element after the `nth` of block `block` of plane `k` whose magnitude has the bits `key`.
fn element(stream: &Stream<'_>, source: Source, k: usize, block: usize, key: u32, nth: u64) -> Result<u64> {
    let list = source.plane(stream, k);
    let found = stream.map(&list, block..block + 1, |extent, results| {
        let values = results.floats(0)[..extent.n as usize].iter();
        let mut equal = values.enumerate().filter(|(_, x)| x.to_bits() & 0x7fff_ffff == key).map(|(i, _)| i);
        let at = equal.nth(nth as usize - 1).unwrap_or(extent.n as usize);
        Ok(extent.first_row * u64::from(extent.row_len) + at as u64 + 1)
    })?;
    Ok(found[0])
}

/// Entries of the first plane of `source` that are zero.
pub fn zeros(stream: &Stream<'_>, source: Source) -> Result<u64> {
    let (mut list, buf) = source.record(stream);
    let bins = list.result("bins", Size::Fixed(BINS * list.planes));
    histogram::record(&mut list, buf, 0, 0, DIGITS[DIGITS.len() - 1], bins);
    let zeros = stream.map(&list, 0..stream.tensor.blocks(), |_, results| Ok(u64::from(results.words(0)[0])))?;
    Ok(zeros.iter().sum())
}

/// Takes the bin that holds the last wanted entry: one digit more is known.
fn descend(search: &mut Search, bins: &[u64], bits: u32) {
    for digit in (0..1 << bits).rev() {
        let count = bins[digit];
        if count >= search.wanted {
            search.prefix = search.prefix << bits | digit as u32;
            search.found = count;
            return;
        }
        search.wanted -= count;
    }
    unreachable!("the bins hold fewer entries than were counted before");
}
