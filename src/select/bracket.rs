//! The search that finds the threshold in one pass: a sample says between which keys it lies, and all entries say
//! whether that is so.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Source, seen, tied};
use crate::error::Result;
use crate::kernels::between::{self, Bracket, Found};
use crate::kernels::trim::Threshold;
use crate::memory::ENTRY;
use crate::stream::Stream;

/// Neighbours in the sample: few, since those of a row are alike.
const PIECE: u64 = 128;

/// The sample takes one element of so many, in this many pieces.
const ONE_IN: u64 = 48;
const PIECES: (u64, u64) = (256, 8192);

/// The least elements for which a sample is worth its while.
const LEAST: u64 = 1 << 18;

/// Standard deviations from the sample's threshold to the ends of the bracket: one in ten thousand lies outside.
const SURE: f64 = 4.0;

/// One element in so many may take a word of a block's list.
pub const LISTED: u32 = 8;

/// No key is larger.
const LARGEST: u32 = 0x7fff_ffff;

/// Bits of an element's place in what is listed; its key takes the others.
const PLACE: u32 = 33;

/// What one block says.
struct Block {
    /// Of each plane: entries above the bracket, at its higher end and at its lower.
    counts: Vec<[u32; 3]>,
    /// Of each plane: entries within it, those that come first as the larger.
    listed: Vec<Vec<u64>>,
}

/// Thresholds of the planes of which something is wanted, as far as the sample told them. Reads the tensor once.
pub fn search(stream: &Stream<'_>, source: Source, wanted: &[Option<u64>]) -> Result<Vec<Option<Threshold>>> {
    let tensor = stream.tensor;
    if !(LEAST..1 << PLACE).contains(&tensor.elements) {
        return Ok(vec![None; wanted.len()]);
    }
    let all = brackets(stream, source, wanted)?;
    let mut thresholds = vec![None; wanted.len()];
    for group in groups(&all, tensor.listed) {
        let own = |(k, found): (usize, &Option<(Bracket, u64)>)| found.filter(|_| group.contains(&k)).map(|f| f.0);
        let brackets: Vec<Option<Bracket>> = all.iter().enumerate().map(own).collect();
        if let Some(blocks) = blocks(stream, source, &brackets)? {
            for (k, bracket) in brackets.iter().enumerate() {
                if let (Some(bracket), Some(wanted)) = (bracket, wanted[k]) {
                    thresholds[k] = threshold(stream, (source, k), *bracket, wanted, &blocks)?;
                }
            }
        }
    }
    Ok(thresholds)
}

/// Planes, neighbours together, that list no more than `most` entries; those that would list more alone are left out.
fn groups(found: &[Option<(Bracket, u64)>], most: u64) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut sum = 0;
    for (k, found) in found.iter().enumerate() {
        let Some((_, listed)) = found.filter(|(_, listed)| *listed <= most) else { continue };
        match groups.last_mut().filter(|_| sum + listed <= most) {
            Some(group) => group.end = k + 1,
            None => {
                groups.push(k..k + 1);
                sum = 0;
            }
        }
        sum += listed;
    }
    groups
}

/// What all blocks say of the entries about `brackets`; `None` where there are more of them than there is room for.
fn blocks(stream: &Stream<'_>, source: Source, brackets: &[Option<Bracket>]) -> Result<Option<Vec<Block>>> {
    let kept = AtomicU64::new(0);
    let (mut list, buf) = source.record(stream);
    let planes = list.planes;
    let found = list.result("found", between::size(planes, room(stream)));
    for (k, bracket) in brackets.iter().enumerate() {
        if let Some(bracket) = bracket {
            between::record(&mut list, buf, k as u32, *bracket, found);
        }
    }
    source.witness(&mut list, buf);
    let blocks = stream.map(&list, 0..stream.tensor.blocks(), |extent, results| {
        let found = Found::new(results.words(0), planes);
        let looked = brackets.iter().enumerate().filter(|(_, bracket)| bracket.is_some());
        looked.map(|(k, _)| k).try_for_each(|k| seen(&found, k, extent))?;
        let Some(entries) = found.listed() else { return Ok(None) };
        if kept.fetch_add(entries.len() as u64, Ordering::Relaxed) > stream.tensor.listed {
            return Ok(None);
        }
        let first = extent.first_row * u64::from(extent.row_len);
        // Entries of a plane are neighbours on the CPU, so that each part finds its room at once.
        let mut listed = vec![Vec::new(); brackets.len()];
        for part in entries.chunk_by(|[_, a], [_, b]| a / extent.n == b / extent.n) {
            let plane = part[0][1] / extent.n;
            let entry = |[key, at]: &[u32; 2]| packed(*key, first + u64::from(at - plane * extent.n));
            listed[plane as usize].extend(part.iter().map(entry));
        }
        Ok(Some(Block { counts: (0..brackets.len()).map(|k| found.counts(k)).collect(), listed }))
    })?;
    Ok(blocks.into_iter().collect())
}

/// Entries that a block can list: as many as take the room of its output, and of one word in [`LISTED`] of its planes.
fn room(stream: &Stream<'_>) -> u32 {
    let (tensor, n) = (stream.tensor, stream.tensor.block(0).n);
    n / 8 * tensor.out_dtype.size() as u32 + n / (2 * LISTED) * tensor.experts() as u32
}

/// The threshold, if it lies in the bracket.
fn threshold(
    stream: &Stream<'_>,
    (source, k): (Source, usize),
    bracket: Bracket,
    wanted: u64,
    blocks: &[Block],
) -> Result<Option<Threshold>> {
    let counts = |i: usize| blocks.iter().map(|block| u64::from(block.counts[k][i])).collect::<Vec<u64>>();
    let (above, highs, lows) = (counts(0).iter().sum::<u64>(), counts(1), counts(2));
    let Some(left) = wanted.checked_sub(above).filter(|left| *left > 0) else { return Ok(None) };
    let equal: u64 = highs.iter().sum();
    if left <= equal {
        return tied(stream, (source, k), bracket.high, left, &highs).map(Some);
    }
    let left = left - equal;
    let mut listed: Vec<u64> = blocks.iter().flat_map(|block| &block.listed[k]).copied().collect();
    if left <= listed.len() as u64 {
        let (_, last, _) = listed.select_nth_unstable_by(left as usize - 1, |a, b| b.cmp(a));
        let (key, place) = unpacked(*last);
        return Ok(Some(Threshold::new(key, place + 1)));
    }
    let left = left - listed.len() as u64;
    if bracket.low < bracket.high && left <= lows.iter().sum() {
        return tied(stream, (source, k), bracket.low, left, &lows).map(Some);
    }
    Ok(None)
}

/// Larger for a larger key, and of equal keys for the one that comes first.
fn packed(key: u32, place: u64) -> u64 {
    u64::from(key) << PLACE | ((1 << PLACE) - 1 - place)
}

fn unpacked(entry: u64) -> (u32, u64) {
    ((entry >> PLACE) as u32, (1 << PLACE) - 1 - (entry & ((1 << PLACE) - 1)))
}

/// Between which keys the thresholds lie, by a sample that is the same for every division into blocks, and about how many
/// entries do.
fn brackets(stream: &Stream<'_>, source: Source, wanted: &[Option<u64>]) -> Result<Vec<Option<(Bracket, u64)>>> {
    let (tensor, n) = (stream.tensor, stream.tensor.elements);
    let pieces = n / PIECE;
    // The sample goes before lists come, and may take their room.
    let most = tensor.listed * ENTRY / (4 * PIECE * (wanted.len() as u64 + 1));
    let count = (pieces / ONE_IN).min(most).clamp(PIECES.0, PIECES.1);
    // Anywhere in its part of the tensor: columns must not go with the pieces.
    let place = |i: u64| {
        let (start, end) = (i * pieces / count, (i + 1) * pieces / count);
        start + (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % (end - start)
    };
    let mut keys: Vec<Vec<u32>> = wanted.iter().map(|_| Vec::with_capacity((count * PIECE) as usize)).collect();
    let pieces: Vec<u64> = (0..count).map(place).collect();
    stream.sample(&source.planes(stream), PIECE as u32, &pieces, |extent, results| {
        for (keys, values) in keys.iter_mut().zip(results.floats(0).chunks(extent.n as usize)) {
            keys.extend(values.iter().map(|x| x.to_bits() & LARGEST));
        }
    })?;
    let bracket = |(keys, wanted): (&Vec<u32>, &Option<u64>)| {
        let bracket = bracket(keys, (*wanted)? as f64 / n as f64);
        let within = keys.iter().filter(|key| (bracket.low + 1..bracket.high).contains(key)).count() as u64;
        Some((bracket, within * (n / (count * PIECE))))
    };
    Ok(keys.iter().zip(wanted).map(bracket).collect())
}

/// About the key above which a share of `keys` lies. Pieces may differ, and so their own deviation counts.
fn bracket(keys: &[u32], share: f64) -> Bracket {
    let mut sorted = keys.to_vec();
    let rank = ((share * keys.len() as f64) as usize).min(keys.len() - 1);
    let (larger, cut, smaller) = sorted.select_nth_unstable_by(rank, |a, b| b.cmp(a));
    let cut = *cut;
    let pieces = keys.len() as f64 / PIECE as f64;
    let deviation = |holds: &dyn Fn(u32) -> bool| {
        let shares = keys.chunks(PIECE as usize).map(|piece| piece.iter().filter(|key| holds(**key)).count() as f64);
        let (sum, squares) = shares.fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
        (squares - sum * sum / pieces).max(0.0).sqrt()
    };
    let own = (share * (1.0 - share) * keys.len() as f64).sqrt();
    let deviation = deviation(&|key| key > cut).max(deviation(&|key| key >= cut)).max(own);
    let slack = (SURE * deviation) as usize + 2;
    let high = if slack <= rank { *larger.select_nth_unstable_by(rank - slack, |a, b| b.cmp(a)).1 } else { LARGEST };
    let low = if slack <= smaller.len() { *smaller.select_nth_unstable_by(slack - 1, |a, b| b.cmp(a)).1 } else { 0 };
    Bracket { low, high }
}
