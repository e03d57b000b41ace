//! The search that always finds the threshold: digit by digit, by histograms over all blocks.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Source, contradiction, tied};
use crate::error::Result;
use crate::kernels::histogram::{self, BINS, DIGITS};
use crate::kernels::trim::Threshold;
use crate::recording::Size;
use crate::stream::Stream;

/// The search for the k-th largest magnitude of one plane.
struct Search {
    /// Bits of the key that are known.
    prefix: u32,
    /// Entries still to be kept among those that start with `prefix`.
    wanted: u64,
    /// Entries that start with `prefix`.
    found: u64,
}

/// Thresholds of the planes of which something is wanted. Reads the tensor three times, and once more where equals are
/// parted.
pub fn search(stream: &Stream<'_>, source: Source, wanted: &[Option<u64>]) -> Result<Vec<Option<Threshold>>> {
    let search = |wanted: &Option<u64>| Some(Search { prefix: 0, wanted: (*wanted)?, found: stream.tensor.elements });
    let mut searches: Vec<Option<Search>> = wanted.iter().map(search).collect();
    for digit in DIGITS {
        let (mut list, buf) = source.record(stream);
        let bins = list.result("bins", Size::Fixed(BINS * list.planes));
        for (k, search) in searches.iter().enumerate() {
            if let Some(search) = search {
                histogram::record(&mut list, buf, k as u32, search.prefix, digit, bins);
            }
        }
        source.witness(&mut list, buf);
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
                descend(search, bins, digit.bits)?;
            }
        }
    }
    let equals = equals(stream, source, &searches)?;
    let threshold = |(k, search): (usize, &Option<Search>)| {
        let Some(search) = search else { return Ok(None) };
        let counts = match search.parts() {
            true => equals.iter().map(|block| block[k]).collect(),
            false => vec![search.found],
        };
        tied(stream, (source, k), search.prefix, search.wanted, &counts).map(Some)
    };
    searches.iter().enumerate().map(threshold).collect()
}

impl Search {
    /// Whether some equals of the threshold stay and some go.
    fn parts(&self) -> bool {
        self.wanted < self.found && self.prefix > 0
    }
}

/// Entries of each plane that equal its threshold, for each block, if that is of any use.
fn equals(stream: &Stream<'_>, source: Source, searches: &[Option<Search>]) -> Result<Vec<Vec<u64>>> {
    if !searches.iter().flatten().any(Search::parts) {
        return Ok(Vec::new());
    }
    let (mut list, buf) = source.record(stream);
    let bins = list.result("bins", Size::Fixed(BINS * list.planes));
    let (digit, low) = (DIGITS[DIGITS.len() - 1], (1 << DIGITS[DIGITS.len() - 1].bits) - 1);
    for (k, search) in searches.iter().enumerate() {
        if let Some(search) = search {
            histogram::record(&mut list, buf, k as u32, search.prefix >> digit.bits, digit, bins);
        }
    }
    source.witness(&mut list, buf);
    let blocks: Vec<Vec<u64>> = stream.map(&list, 0..stream.tensor.blocks(), |_, results| {
        let equals = |(k, search): (usize, &Option<Search>)| {
            let bin = search.as_ref().map_or(0, |search| search.prefix & low);
            u64::from(results.words(0)[k * BINS as usize + bin as usize])
        };
        Ok(searches.iter().enumerate().map(equals).collect())
    })?;
    let all = |k: usize| blocks.iter().map(|block| block[k]).sum::<u64>();
    if searches.iter().enumerate().any(|(k, search)| search.as_ref().is_some_and(|search| all(k) != search.found)) {
        return Err(contradiction("other entries are equal than before"));
    }
    Ok(blocks)
}

/// Takes the bin that holds the last wanted entry: one digit more is known.
///
/// # Errors
/// Counts that contradict each other, which a device that works never gives.
fn descend(search: &mut Search, bins: &[u64], bits: u32) -> Result<()> {
    if bins[..1 << bits].iter().sum::<u64>() != search.found {
        return Err(contradiction("bins do not hold the entries that were counted before"));
    }
    for digit in (0..1 << bits).rev() {
        let count = bins[digit];
        if count >= search.wanted {
            search.prefix = search.prefix << bits | digit as u32;
            search.found = count;
            return Ok(());
        }
        search.wanted -= count;
    }
    unreachable!("no more is wanted than was found")
}
