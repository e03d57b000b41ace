//! Exact selection of the largest magnitudes of a whole tensor.

use log::debug;

use crate::error::{Error, Result};
use crate::kernels::between::{self, Bracket, Found};
use crate::kernels::trim::Threshold;
use crate::kernels::{variance, witness};
use crate::recording::{Buf, Extent, Recording, Role, Size};
use crate::stack::{Stack, difference};
use crate::stream::Stream;

mod bracket;
mod radix;

pub use bracket::LISTED;

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
                difference(&mut list, tensor.non_finite, base, expert, tau, 0);
                list
            }
            Self::Variance => self.planes(stream),
        }
    }

    /// A list that hands back all planes.
    fn planes(self, stream: &Stream<'_>) -> Recording {
        let (mut list, buf) = self.record(stream);
        list.buffers[buf.0].role = Role::Result;
        list
    }

    /// Adds what samples of a block can check: of counts they can say nothing.
    fn witness(self, list: &mut Recording, buf: Buf) {
        let planes = match self {
            Self::Experts => list.planes - 1,
            Self::Variance => 1,
        };
        let out = list.result("witness", Size::Rows(planes));
        witness::record(list, buf, out);
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

/// The thresholds that keep exactly `wanted[k]` entries of plane k of `source`, of equals those with the lower index.
/// Reads the tensor once, and three or four times more where that was not enough.
pub fn cuts(stream: &Stream<'_>, source: Source, wanted: &[u64]) -> Result<Vec<Threshold>> {
    let known = |&wanted: &u64| match wanted {
        0 => Some(Threshold::NOTHING),
        all if all >= stream.tensor.elements => Some(Threshold::EVERYTHING),
        _ => None,
    };
    let mut cuts: Vec<Option<Threshold>> = wanted.iter().map(known).collect();
    for search in [bracket::search, radix::search] {
        let open: Vec<Option<u64>> =
            cuts.iter().zip(wanted).map(|(cut, wanted)| cut.is_none().then_some(*wanted)).collect();
        if open.iter().any(Option::is_some) {
            debug!("`{}`: {} thresholds", stream.tensor.name, open.iter().flatten().count());
            let found = search(stream, source, &open)?;
            cuts.iter_mut().zip(found).for_each(|(cut, found)| *cut = cut.or(found));
        }
    }
    Ok(cuts.into_iter().map(|cut| cut.expect("the radix search finds all")).collect())
}

/// Of the entries that equal `key`, `counts` of them in each block, the first `wanted` stay.
fn tied(stream: &Stream<'_>, (source, k): (Source, usize), key: u32, wanted: u64, counts: &[u64]) -> Result<Threshold> {
    // Zeros are the same whether they stay or go.
    if key == 0 || wanted == counts.iter().sum::<u64>() {
        return Ok(Threshold::new(key, u64::MAX));
    }
    let mut left = wanted;
    for (block, count) in counts.iter().enumerate() {
        if left <= *count {
            return Ok(Threshold::new(key, element(stream, source, k, block, key, left)?));
        }
        left -= count;
    }
    Err(contradiction("fewer entries are equal than were counted"))
}

/// The error of a device whose counts cannot all be true.
fn contradiction(what: &str) -> Error {
    Error::device(format!("the device counts wrongly: {what}")).hint("try another `--device`, or `--device cpu`")
}

/// The element after the `nth` of block `block` of plane `k` whose magnitude has the bits `key`.
fn element(stream: &Stream<'_>, source: Source, k: usize, block: usize, key: u32, nth: u64) -> Result<u64> {
    let list = source.plane(stream, k);
    let found = stream.map(&list, block..block + 1, |extent, results| {
        let values = results.floats(0)[..extent.n as usize].iter();
        let mut equal = values.enumerate().filter(|(_, x)| x.to_bits() & 0x7fff_ffff == key).map(|(i, _)| i);
        let at = equal.nth(nth as usize - 1);
        let at = at.ok_or_else(|| contradiction("fewer entries are equal than were counted"))?;
        Ok(extent.first_row * u64::from(extent.row_len) + at as u64 + 1)
    })?;
    Ok(found[0])
}

/// Entries of the first plane of `source` that are zero.
pub fn zeros(stream: &Stream<'_>, source: Source) -> Result<u64> {
    let (mut list, buf) = source.record(stream);
    let planes = list.planes;
    let found = list.result("found", between::size(planes, 1));
    between::record(&mut list, buf, 0, Bracket { low: 0, high: 0 }, found);
    source.witness(&mut list, buf);
    let zeros = stream.map(&list, 0..stream.tensor.blocks(), |extent, results| {
        let found = Found::new(results.words(0), planes);
        seen(&found, 0, extent)?;
        Ok(u64::from(found.counts(0)[1]))
    })?;
    Ok(zeros.iter().sum())
}

/// Checks that plane `k` of a block was looked at.
fn seen(found: &Found<'_>, k: usize, extent: &Extent) -> Result<()> {
    if found.seen(k) == extent.n { Ok(()) } else { Err(contradiction("it has not seen all entries")) }
}
