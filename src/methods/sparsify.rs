//! Sparsification: what of each expert's task vector takes part in the merge.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;
use crate::kernels::drop as random;
use crate::kernels::histogram::{BINS, DIGITS};
use crate::kernels::trim::Threshold;
use crate::kernels::{count, histogram, norms, trim};
use crate::methods::{Rescale, Settings, Sparsify};
use crate::recording::{Buf, Recording, Size};
use crate::stack::Stack;
use crate::stream::Stream;
use crate::totals::{Totals, totals};

/// What stays of one expert's task vector, and its scale.
#[derive(Clone, Debug)]
pub struct Mask {
    threshold: Option<Threshold>,
    random: Option<([u32; 2], f64)>,
    scale: f32,
}

impl Mask {
    /// True if it changes nothing.
    pub fn is_identity(&self) -> bool {
        self.threshold.is_none() && self.random.is_none() && self.scale == 1.0
    }

    /// Appends the masking of `tau[plane]`.
    pub fn record(&self, list: &mut Recording, tau: Buf, plane: u32) {
        if let Some(threshold) = self.threshold {
            trim::record(list, tau, plane, threshold);
        }
        if self.random.is_some() || self.scale != 1.0 {
            let (key, density) = self.random.unwrap_or(([0; 2], 1.0));
            random::record(list, tau, plane, key, density, self.scale);
        }
    }
}

/// The masks of all experts for one tensor. Reads the tensor as often as an exact answer takes: not at all for
/// plain methods, four or five times for an exact threshold, once for the L1 rescaling.
pub fn masks(stream: &Stream<'_>, rule: Sparsify, settings: &Settings, seed: u64) -> Result<Vec<Mask>> {
    let name = &stream.tensor.name;
    let thresholds = match rule {
        Sparsify::Largest => thresholds(stream, &settings.densities)?,
        Sparsify::Keep | Sparsify::Random => vec![None; settings.densities.len()],
    };
    let mut masks = Vec::new();
    for (expert, (&density, threshold)) in settings.densities.iter().zip(thresholds).enumerate() {
        let random = (rule == Sparsify::Random && density < 1.0).then(|| (random::key(seed, name, expert), density));
        masks.push(Mask { threshold, random, scale: 1.0 });
    }
    match settings.rescale {
        Rescale::None => {}
        Rescale::InverseDensity => {
            for (mask, &density) in masks.iter_mut().zip(&settings.densities) {
                mask.scale = if density > 0.0 { (1.0 / density) as f32 } else { 1.0 };
            }
        }
        Rescale::L1 if masks.iter().all(Mask::is_identity) => {}
        Rescale::L1 => {
            let scales = l1_scales(stream, &masks)?;
            masks.iter_mut().zip(scales).for_each(|(mask, scale)| mask.scale = scale);
        }
    }
    Ok(masks)
}

/// ‖τ‖₁ / ‖m ∘ τ‖₁ for each expert; 1 where nothing is left.
fn l1_scales(stream: &Stream<'_>, masks: &[Mask]) -> Result<Vec<f32>> {
    let experts = masks.len();
    let mut list = Recording::new(experts as u32);
    let stack = Stack::record(&mut list, stream.tensor, experts);
    let before = list.result("before", norms::size(list.planes));
    norms::record(&mut list, stack.tau, before);
    for (k, mask) in masks.iter().enumerate() {
        mask.record(&mut list, stack.tau, k as u32);
    }
    let after = list.result("after", norms::size(list.planes));
    norms::record(&mut list, stack.tau, after);
    let totals = totals(stream, &list)?;
    let ratio = |(before, after): (&Totals, &Totals)| if after.l1 > 0.0 { (before.l1 / after.l1) as f32 } else { 1.0 };
    Ok(totals[0].iter().zip(&totals[1]).map(ratio).collect())
}

/// The search for the k-th largest magnitude of one expert.
struct Search {
    /// Bits of the key that are known.
    prefix: u32,
    /// Entries still to be kept among those that start with `prefix`.
    wanted: u64,
    /// Entries that start with `prefix`.
    found: u64,
}

/// The exact cut that keeps ⌊density·n⌋ entries of each expert; `None` keeps all.
fn thresholds(stream: &Stream<'_>, densities: &[f64]) -> Result<Vec<Option<Threshold>>> {
    let n = stream.tensor.elements;
    let kept = |density: f64| (density * n as f64).floor() as u64;
    let mut searches: Vec<Option<Search>> = densities
        .iter()
        .map(|&d| (kept(d) > 0 && kept(d) < n).then(|| Search { prefix: 0, wanted: kept(d), found: n }))
        .collect();
    if searches.iter().any(Option::is_some) {
        for digit in DIGITS {
            let mut list = Recording::new(densities.len() as u32);
            let bins = list.result("bins", Size::Fixed(BINS * list.planes));
            let stack = Stack::record(&mut list, stream.tensor, densities.len());
            for (k, search) in searches.iter().enumerate() {
                if let Some(search) = search {
                    histogram::record(&mut list, stack.tau, k as u32, search.prefix, digit, bins);
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
    let quotas = quotas(stream, &searches)?;
    Ok(searches
        .iter()
        .zip(quotas)
        .zip(densities)
        .map(|((search, quota), &density)| match search {
            Some(search) => {
                let (tie_row, tie_quota) = quota.unwrap_or((u32::MAX, u32::MAX));
                Some(Threshold { key: search.prefix, tie_row, tie_quota })
            }
            None => (kept(density) == 0).then_some(Threshold::NOTHING),
        })
        .collect())
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

/// Where some ties of the threshold stay and some go: the row that is split, and how many stay in it.
fn quotas(stream: &Stream<'_>, searches: &[Option<Search>]) -> Result<Vec<Option<(u32, u32)>>> {
    let experts = searches.len();
    let split = |search: &Option<Search>| search.as_ref().is_some_and(|s| s.wanted < s.found && s.prefix > 0);
    if !searches.iter().any(split) {
        return Ok(vec![None; experts]);
    }
    let mut list = Recording::new(experts as u32);
    let ties = list.result("ties", Size::Rows(list.planes));
    let stack = Stack::record(&mut list, stream.tensor, experts);
    for (k, search) in searches.iter().enumerate() {
        count::record(&mut list, stack.tau, k as u32, search.as_ref().map_or(0, |s| s.prefix), ties);
    }
    let rows = stream.map(&list, 0..stream.tensor.blocks(), |_, results| Ok(results.words(0).to_vec()))?.concat();
    let quota = |(k, search): (usize, &Option<Search>)| {
        let mut left = search.as_ref().filter(|_| split(search))?.wanted;
        for (row, counts) in rows.chunks(experts).enumerate() {
            let count = u64::from(counts[k]);
            if left < count {
                return Some((row as u32, left as u32));
            }
            left -= count;
        }
        None
    };
    Ok(searches.iter().enumerate().map(quota).collect())
}
