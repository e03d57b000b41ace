//! Statistics of whole tensors: those of rows, summed in the order of the rows, so that no sum depends on the blocks.

use crate::error::Result;
use crate::kernels::norms::Stats;
use crate::recording::Recording;
use crate::stream::Stream;

/// Statistics of one plane of a tensor, as [`Stats`] are of one row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Σ|x|.
    pub l1: f64,
    /// Σx².
    pub square: f64,
    /// max|x|.
    pub largest: f64,
    /// Σx·m, with m the last plane's entries.
    pub dot: f64,
}

impl Totals {
    fn add(&mut self, row: &Stats) {
        self.l1 += f64::from(row.l1);
        self.square += f64::from(row.square);
        self.largest = self.largest.max(f64::from(row.largest));
        self.dot += f64::from(row.dot);
    }
}

/// Runs `list`, whose results are all row statistics: for each result, the totals of every plane.
pub fn totals(stream: &Stream<'_>, list: &Recording) -> Result<Vec<Vec<Totals>>> {
    let planes = list.planes as usize;
    let blocks = stream.map(list, 0..stream.tensor.blocks(), |_, results| Ok(results.buffers.clone()))?;
    let total = |i: usize| {
        let mut totals = vec![Totals::default(); planes];
        for block in &blocks {
            for (at, row) in bytemuck::cast_slice(&block[i]).iter().enumerate() {
                totals[at % planes].add(row);
            }
        }
        totals
    };
    Ok((0..list.results().count()).map(total).collect())
}
