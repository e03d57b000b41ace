//! Angles between the experts of a tensor, for the report.

use crate::error::Result;
use crate::methods::gram;
use crate::report::Between;
use crate::stream::Stream;

/// Most experts between which angles are taken: pairs are many more.
pub const MOST: usize = 16;

/// Pairs of `n` in the order of [`Between::cosines`].
pub fn pairs(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(move |i| (i + 1..n).map(move |j| (i, j)))
}

/// The cosines of all pairs of experts, over a sample; none of a single expert, and of more than [`MOST`].
///
/// # Errors
/// A failed read.
pub fn between(stream: &Stream<'_>) -> Result<Option<Between>> {
    let experts = stream.tensor.experts();
    if !(2..=MOST).contains(&experts) {
        return Ok(None);
    }
    let (elements, gram) = gram::sample(stream)?;
    let cosines = pairs(experts).map(|(i, j)| gram.cosine(i, j).unwrap_or(f64::NAN)).collect();
    Ok(Some(Between { elements, cosines }))
}
