//! Samples as rows: several in a batch, one after another, none padded.

use std::ops::Range;

use super::network::{Index, Network, Op, Rows, Sight};
use crate::data::{Sample, Wants};

/// Some samples of one set, as many as fit into a buffer.
pub struct Batch {
    /// The set they are of.
    pub set: usize,
    /// Their places in it.
    pub samples: Range<usize>,
    /// Tokens, one after another.
    pub tokens: Vec<u32>,
    /// Pixels, one image after another.
    pub pixels: Vec<f32>,
    /// Rows of each sample.
    pub spans: Vec<Range<u32>>,
    patches: u32,
}

impl Batch {
    /// The samples of set `set`, in batches of at most `rows` rows, and of one sample at least.
    pub fn all(network: &Network, set: usize, samples: &[Sample], rows: u32) -> Vec<Self> {
        let patches = network.ops.iter().find_map(|op| match op {
            Op::Patches { image, .. } => Some((image.height / image.patch) * (image.width / image.patch)),
            _ => None,
        });
        let empty = |first: usize| Self {
            set,
            samples: first..first,
            tokens: Vec::new(),
            pixels: Vec::new(),
            spans: Vec::new(),
            patches: 0,
        };
        let mut batches: Vec<Self> = Vec::new();
        for (i, sample) in samples.iter().enumerate() {
            let len = match sample {
                Sample::Tokens(tokens) => tokens.len() as u32,
                Sample::Pixels(_) => patches.unwrap_or(0) + network.extra_rows,
            };
            if batches.last().is_none_or(|batch| batch.positions() + len > rows) {
                batches.push(empty(i));
            }
            let batch = batches.last_mut().expect("just pushed");
            let start = batch.positions();
            batch.spans.push(start..start + len);
            batch.samples.end = i + 1;
            match sample {
                Sample::Tokens(tokens) => batch.tokens.extend(tokens),
                Sample::Pixels(pixels) => {
                    batch.pixels.extend(pixels);
                    batch.patches += patches.unwrap_or(0);
                }
            }
        }
        batches
    }

    fn positions(&self) -> u32 {
        self.spans.last().map_or(0, |span| span.end)
    }

    /// Rows of a value.
    pub fn rows(&self, rows: Rows) -> u32 {
        match rows {
            Rows::Positions => self.positions(),
            Rows::Patches => self.patches,
            Rows::Samples => self.spans.len() as u32,
        }
    }

    /// The row that each row takes; `u32::MAX` for none.
    pub fn index(&self, index: Index) -> Vec<u32> {
        let each =
            |of: &dyn Fn(u32) -> u32| self.spans.iter().flat_map(|span| (0..span.end - span.start).map(of)).collect();
        match index {
            Index::Token => self.tokens.clone(),
            Index::Position(first) => each(&|at| first + at),
            Index::PositionPast(pad) => {
                let of = |span: &Range<u32>| {
                    let mut last = pad;
                    let row = move |token: &u32| {
                        last += u32::from(*token != pad);
                        if *token == pad { pad } else { last }
                    };
                    self.tokens[span.start as usize..span.end as usize].iter().map(row).collect::<Vec<_>>()
                };
                self.spans.iter().flat_map(of).collect()
            }
            Index::Zero => each(&|_| 0),
            Index::Nothing => each(&|_| u32::MAX),
            Index::ClassRow => each(&|at| if at == 0 { 0 } else { u32::MAX }),
            Index::PatchRow => {
                let rows = self.spans.iter().enumerate().flat_map(|(i, span)| {
                    let before = span.start - i as u32;
                    (0..span.end - span.start).map(move |at| if at == 0 { u32::MAX } else { before + at - 1 })
                });
                rows.collect()
            }
            Index::First => self.spans.iter().map(|span| span.start).collect(),
        }
    }

    /// First and last (exclusive) key row of each row.
    pub fn sight(&self, sight: Sight) -> Vec<u32> {
        let keys = |span: &Range<u32>, row: u32| match sight {
            Sight::All => [span.start, span.end],
            Sight::Patches => [span.start + 1, span.end],
            Sight::Causal { window } => [(row + 1).saturating_sub(window).max(span.start), row + 1],
        };
        self.spans.iter().flat_map(|span| span.clone().flat_map(move |row| keys(span, row))).collect()
    }

    /// The token that follows each position; `u32::MAX` for the last of a sample.
    pub fn next_tokens(&self) -> Vec<u32> {
        let mut next = vec![u32::MAX; self.tokens.len()];
        for span in &self.spans {
            for row in span.start..span.end.saturating_sub(1) {
                next[row as usize] = self.tokens[row as usize + 1];
            }
        }
        next
    }
}

/// Rows of a batch for which no value is wider than a buffer should be.
pub fn most_rows(network: &Network) -> u32 {
    const BYTES: u32 = 32 << 20;
    let positions = match network.wants {
        Wants::Tokens { .. } => 1,
        Wants::Pixels { .. } => 2, // patches come beside positions
    };
    (BYTES / 4 / network.widest() / positions).clamp(64, 4096)
}
