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

/// Runs `list`, whose results are all pairs of sums of rows: for each result, both sums of the whole tensor.
pub fn pairs(stream: &Stream<'_>, list: &Recording) -> Result<Vec<[f64; 2]>> {
    let blocks = stream.map(list, 0..stream.tensor.blocks(), |_, results| Ok(results.buffers.clone()))?;
    let rows = |i: usize| blocks.iter().flat_map(move |block| bytemuck::cast_slice::<u32, [f32; 2]>(&block[i]));
    let total = |i: usize| rows(i).fold([0.0; 2], |sum, row| [0, 1].map(|j| sum[j] + f64::from(row[j])));
    Ok((0..list.results().count()).map(total).collect())
}
