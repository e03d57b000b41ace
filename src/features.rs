//! A network run on samples with parameters that are loaded leaf by leaf, and its features measured on the way.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use crate::calibrate::fsc::{Measured, Position};
use crate::data::Samples;
use crate::error::Result;
use crate::evaluate::{Prediction, prediction};
use crate::forward::batch::{Batch, most_rows};
use crate::forward::network::{Form, Index, Network, Op, Value};
use crate::forward::pass::Pass;
use crate::kernels::deviation::{self, Deviation};
use crate::kernels::factor::Strength;
use crate::kernels::gather;
use crate::kernels::loss::{self, Part};
use crate::kernels::matmul::{Place, Shape, Weight};
use crate::parameters::{Library, Loaded, Open, Version};
use crate::progress::Progress;
use crate::recording::{Buf, Recording, Size};

/// Words of features that are computed at a time.
const PIECE: u32 = 2 << 20;

/// Samples for all experts.
pub struct Sets {
    /// The sets.
    pub sets: Vec<Samples>,
    /// Which of them each expert has.
    pub of: Vec<usize>,
}

impl Sets {
    /// All samples in batches for `network`.
    pub fn batches(&self, network: &Network) -> Vec<Batch> {
        let all = self.sets.iter().enumerate();
        all.flat_map(|(set, samples)| Batch::all(network, set, &samples.samples, most_rows(network))).collect()
    }

    /// Most bytes of activations of a pass with `tracks` tracks: all values of one, the last hidden states of the others.
    pub fn activation_bytes(&self, network: &Network, tracks: u64) -> u64 {
        let batches = self.batches(network);
        let bytes = |value: usize| {
            let (rows, width) = network.values[value];
            batches.iter().map(|batch| 4 * u64::from(batch.rows(rows)) * u64::from(width)).sum::<u64>()
        };
        let last = network.last_uses();
        let (mut live, mut most) = (0, 0);
        let mut alive: Vec<usize> = Vec::new();
        for (at, op) in network.ops.iter().enumerate() {
            alive.extend(op.writes().map(|value| value.0).inspect(|value| live += bytes(*value)));
            most = most.max(live);
            alive.retain(|&value| {
                let keep = last[value] > at;
                live -= if keep { 0 } else { bytes(value) };
                keep
            });
        }
        most + tracks.saturating_sub(1) * bytes(network.hidden.0)
    }
}

/// A pass with its parameters.
pub struct Runner<'a> {
    /// The values.
    pub pass: Pass<'a>,
    library: &'a Library<'a>,
    progress: &'a Progress,
    /// The set of each expert.
    of: Vec<usize>,
    /// Whether leaves stay loaded until [`Runner::forget`]: for several tracks one after another.
    keep: bool,
    open: HashMap<usize, Leaf<'a>>,
    loaded_bytes: u64,
}

struct Leaf<'a> {
    open: Open<'a>,
    /// The only chunk, while it is loaded.
    loaded: Option<Loaded>,
}

impl<'a> Runner<'a> {
    /// A runner of `network` over `batches`; `of` tells the set of each expert, `wanted` the values that are kept.
    pub fn new(
        library: &'a Library<'a>,
        network: &'a Network,
        batches: &'a [Batch],
        of: &[usize],
        wanted: &[Value],
        keep: bool,
        progress: &'a Progress,
    ) -> Result<Self> {
        let pass = Pass::new(network, library.executor, batches, wanted)?;
        progress.all_leaves.store(0, Ordering::Relaxed);
        progress.leaves.store(0, Ordering::Relaxed);
        Ok(Self { pass, library, progress, of: of.to_vec(), keep, open: HashMap::new(), loaded_bytes: 0 })
    }

    /// Tells whoever watches that `tracks` tracks will go through the network.
    pub fn announce(&self, tracks: usize) {
        let leaves = self.pass.network.ops.iter().filter(|op| op.leaf().is_some()).count();
        self.progress.all_leaves.store((leaves * tracks) as u64, Ordering::Relaxed);
    }

    /// All batches, or those of one expert's set.
    pub fn batches(&self, expert: Option<usize>) -> Vec<usize> {
        let set = expert.map(|k| self.of[k]);
        let all = self.pass.batches.iter().enumerate();
        all.filter(|(_, batch)| set.is_none_or(|set| batch.set == set)).map(|(i, _)| i).collect()
    }

    /// Opens the leaf of operation `at`, if it is not.
    fn leaf(&mut self, at: usize) -> Result<usize> {
        let op = self.pass.network.ops[at];
        let leaf = op.leaf().expect("an operation with parameters");
        if !self.open.contains_key(&leaf) {
            let wanted = match op {
                Op::Lookup { index: Index::Token, .. } => {
                    let mut ids: Vec<u32> = self.pass.batches.iter().flat_map(|batch| batch.tokens.clone()).collect();
                    ids.sort_unstable();
                    ids.dedup();
                    Some(ids)
                }
                _ => None,
            };
            let open = self.library.open(&self.pass.network.leaves[leaf], wanted.as_deref())?;
            self.open.insert(leaf, Leaf { open, loaded: None });
        }
        Ok(leaf)
    }

    /// True if the merge changes the leaf of operation `at`.
    pub fn is_merged(&mut self, at: usize) -> Result<bool> {
        let leaf = self.leaf(at)?;
        Ok(self.open[&leaf].open.is_merged())
    }

    /// The leaf of operation `at`, and its only chunk where it is loaded; both gone from the runner.
    pub fn take(&mut self, at: usize) -> Result<(Open<'a>, Option<Loaded>)> {
        let leaf = self.leaf(at)?;
        let leaf = self.open.remove(&leaf).expect("just opened");
        Ok((leaf.open, leaf.loaded))
    }

    /// Unloads the leaf of operation `at`, or all of them.
    pub fn forget(&mut self, at: Option<usize>) {
        let one = at.and_then(|at| self.pass.network.ops[at].leaf());
        let gone: Vec<usize> = self.open.keys().copied().filter(|leaf| one.is_none_or(|one| one == *leaf)).collect();
        for leaf in gone {
            let leaf = self.open.remove(&leaf).expect("just seen");
            if let Some(loaded) = leaf.loaded {
                leaf.open.unload(loaded);
            }
        }
        if at.is_none() {
            self.loaded_bytes = 0;
        }
    }

    /// Calls `work` for each chunk of the leaf of operation `at`, with the first column that it gives.
    fn each_chunk(
        &mut self,
        at: usize,
        mut work: impl FnMut(&mut Self, &Open<'a>, &Loaded, u32) -> Result<()>,
    ) -> Result<()> {
        let leaf = self.leaf(at)?;
        let Leaf { open, mut loaded } = self.open.remove(&leaf).expect("just opened");
        let mut column = 0;
        for i in 0..open.chunks() {
            self.progress.check()?;
            let there = loaded.is_some();
            let chunk = match loaded.take() {
                Some(chunk) => chunk,
                None => open.load(i)?,
            };
            work(self, &open, &chunk, column)?;
            column += chunk.chunk.len() as u32;
            // Leaves of a block that do not all fit are loaded again for each track.
            let bytes = if self.keep && !there { chunk.bytes() } else { 0 };
            if open.chunks() == 1 && self.loaded_bytes + bytes <= self.library.budget {
                self.loaded_bytes += bytes;
                loaded = Some(chunk);
            } else {
                open.unload(chunk);
            }
        }
        self.open.insert(leaf, Leaf { open, loaded });
        Ok(())
    }

    /// Runs operation `at` of a track; a leaf with the parameters `version`. What is not needed later is not computed.
    pub fn step(&mut self, track: usize, at: usize, batches: &[usize], version: Version) -> Result<()> {
        self.progress.leaves.fetch_add(u64::from(self.pass.network.ops[at].leaf().is_some()), Ordering::Relaxed);
        match self.pass.network.ops[at] {
            Op::Head { .. } => Ok(()),
            Op::Map { out, .. } | Op::Lookup { out, .. } => {
                if self.pass.needs(at, out) {
                    self.output(track, at, batches, version, out)?;
                }
                Ok(())
            }
            _ => self.pass.plain(track, at, batches),
        }
    }

    fn output(&mut self, track: usize, at: usize, batches: &[usize], version: Version, out: Value) -> Result<()> {
        self.each_chunk(at, |own, open, loaded, column| {
            let formed = open.form(&mut own.pass, loaded, version)?;
            let mut list = Recording::new(1);
            let mut old = Vec::new();
            for &batch in batches {
                // A table's rows are in one of its chunks: what is not yet known is added to what is.
                let onto = match own.pass.network.ops[at] {
                    Op::Lookup { .. } if column > 0 => {
                        old.push(own.pass.renew(track, batch, out)?);
                        old.last().copied()
                    }
                    Op::Lookup { onto, .. } => onto.map(|onto| own.pass.value(track, batch, onto)),
                    _ => None,
                };
                let onto = onto.map(|id| own.pass.buf(&mut list, id));
                let id = own.pass.make(track, batch, out)?;
                let buf = own.pass.buf(&mut list, id);
                let index = own.index(&mut list, at, batch, loaded);
                let stride = own.pass.shape(batch, out).1;
                let cols = own.columns(at, batch, loaded);
                let place = Place { buf, stride, column: if index.is_some() { 0 } else { column } };
                own.pass.apply(&mut list, (track, at, batch), formed, (0, cols), (index, onto), place);
            }
            own.pass.run(&list)?;
            old.into_iter().for_each(|id| own.pass.kept.give(id));
            if let Some(&batch) = batches.first() {
                own.pass.compare(track, at, batch, formed, own.columns(at, batch, loaded))?;
            }
            open.unform(&mut own.pass, formed);
            Ok(())
        })
    }

    /// Where the rows of a table are in a loaded chunk.
    fn index(&self, list: &mut Recording, at: usize, batch: usize, loaded: &Loaded) -> Option<Buf> {
        let Op::Lookup { index, .. } = self.pass.network.ops[at] else { return None };
        Some(list.constant("index", &loaded.chunk.places(&self.pass.batches[batch].index(index))))
    }

    /// Columns that a loaded chunk of the leaf of operation `at` gives.
    fn columns(&self, at: usize, batch: usize, loaded: &Loaded) -> u32 {
        let leaf = self.pass.network.ops[at].leaf().expect("an operation with parameters");
        match (self.pass.network.leaves[leaf].form, self.pass.network.ops[at]) {
            (Form::Linear { .. }, _) | (Form::Table { .. }, Op::Head { .. }) => loaded.chunk.len() as u32,
            _ => self.pass.features(at, batch).1,
        }
    }

    /// Measures the leaf of operation `at` on the inputs that `track` has: every expert's features on its own samples,
    /// and those of the merged parameters at `strength`.
    pub fn measure(&mut self, track: usize, at: usize, strength: Strength) -> Result<Measured> {
        let experts = self.of.len();
        let mut measured = Measured { experts: vec![Vec::new(); experts], channels: None };
        let sets = self.of.iter().max().map_or(0, |set| set + 1);
        self.each_chunk(at, |own, open, loaded, _| {
            let merged = open.form(&mut own.pass, loaded, Version::TauMerged(strength))?;
            for set in 0..sets {
                let experts: Vec<usize> = (0..experts).filter(|&k| own.of[k] == set).collect();
                let mut formed = Vec::new();
                for &k in &experts {
                    formed.push((k, open.form(&mut own.pass, loaded, Version::Tau(k))?));
                }
                let mut first = vec![0; experts.len()];
                for batch in own.batches(experts.first().copied()) {
                    own.progress.check()?;
                    let (rows, _) = own.pass.features(at, batch);
                    let cols = own.columns(at, batch, loaded);
                    let single = !matches!(own.pass.network.ops[at], Op::Map { .. } | Op::Head { .. });
                    let most = (PIECE / rows.max(1)).max(1);
                    let step = if single || own.is_affine(at) { cols } else { most.min(cols) };
                    let mut list = Recording::new(1);
                    let index = own.index(&mut list, at, batch, loaded);
                    let a = list.scratch("a", Size::Fixed(rows * step));
                    let c = list.scratch("c", Size::Fixed(rows * step));
                    for from in (0..cols).step_by(step.max(1) as usize) {
                        let piece = (from, step.min(cols - from));
                        let place = |buf| Place { buf, stride: piece.1, column: 0 };
                        own.pass.apply(&mut list, (track, at, batch), merged, piece, (index, None), place(c));
                        for (_, tau) in &formed {
                            own.pass.apply(&mut list, (track, at, batch), *tau, piece, (index, None), place(a));
                            let stats = list.result("deviation", Size::Fixed(rows * deviation::WIDTH));
                            deviation::record(&mut list, (rows, piece.1), a, c, stats);
                        }
                    }
                    let results = own.pass.run(&list)?;
                    for (i, words) in results.buffers.iter().enumerate() {
                        let place = i % experts.len();
                        let positions = &mut measured.experts[experts[place]];
                        positions.resize(positions.len().max(first[place] + rows as usize), Position::default());
                        for (position, part) in
                            positions[first[place]..].iter_mut().zip(bytemuck::cast_slice::<u32, Deviation>(words))
                        {
                            position.add(part);
                        }
                    }
                    first.iter_mut().for_each(|first| *first += rows as usize);
                }
                formed.into_iter().for_each(|(_, formed)| open.unform(&mut own.pass, formed));
            }
            open.unform(&mut own.pass, merged);
            Ok(())
        })?;
        if self.is_within_heads(at) {
            measured.channels = Some(self.channels(at, strength)?);
        }
        Ok(measured)
    }

    /// True for a normalisation within heads.
    fn is_within_heads(&self, at: usize) -> bool {
        let Op::Map { leaf, x, .. } = self.pass.network.ops[at] else { return false };
        let leaf = &self.pass.network.leaves[leaf];
        matches!(leaf.form, Form::Affine { width } if width != self.pass.network.values[x.0].1) && leaf.bias.is_none()
    }

    /// The deviations of a normalisation within heads, channel by channel. Whatever goes in, a channel's deviations are
    /// to each other as its parameters'.
    fn channels(&mut self, at: usize, strength: Strength) -> Result<Vec<Vec<Position>>> {
        let experts = self.of.len();
        let mut channels = Vec::new();
        self.each_chunk(at, |own, open, loaded, _| {
            let merged = open.form(&mut own.pass, loaded, Version::TauMerged(strength))?;
            let c = own.pass.kept.words(merged.weight);
            for k in 0..experts {
                let tau = open.form(&mut own.pass, loaded, Version::Tau(k))?;
                let mut list = Recording::new(1);
                let (a, m) = (own.pass.buf(&mut list, tau.weight), own.pass.buf(&mut list, merged.weight));
                let stats = list.result("deviation", Size::Fixed(c * deviation::WIDTH));
                deviation::record(&mut list, (c, 1), a, m, stats);
                let parts: &[Deviation] = bytemuck::cast_slice(own.pass.run(&list)?.words(0));
                channels.push(parts.iter().map(Position::of).collect());
                open.unform(&mut own.pass, tau);
            }
            open.unform(&mut own.pass, merged);
            Ok(())
        })?;
        Ok(channels)
    }

    /// What the head of operation `at` predicts, of every position that has a target: the next token, or the label of the
    /// sample in `sets`.
    pub fn predict(
        &mut self,
        track: usize,
        at: usize,
        batches: &[usize],
        version: Version,
        sets: &Sets,
    ) -> Result<Vec<Prediction>> {
        let Op::Head { x, tokens, .. } = self.pass.network.ops[at] else { unreachable!("only heads predict") };
        let targets = |batch: &Batch| match &sets.sets[batch.set].labels {
            Some(labels) if !tokens => labels[batch.samples.clone()].to_vec(),
            _ => batch.next_tokens(),
        };
        let targets: Vec<Vec<u32>> = batches.iter().map(|&batch| targets(&self.pass.batches[batch])).collect();
        // Rows with a target; of each, the parts that the chunks give.
        let rows: Vec<Vec<u32>> = targets
            .iter()
            .map(|of| (0..of.len() as u32).filter(|row| of[*row as usize] != u32::MAX).collect())
            .collect();
        let mut parts: Vec<Vec<Vec<(u32, Part)>>> = rows.iter().map(|rows| vec![Vec::new(); rows.len()]).collect();
        self.each_chunk(at, |own, open, loaded, column| {
            let formed = open.form(&mut own.pass, loaded, version)?;
            let cols = loaded.chunk.len() as u32;
            let step = (PIECE / cols.max(1)).max(1) as usize;
            for (i, &batch) in batches.iter().enumerate() {
                for (from, piece) in (0..).step_by(step).zip(rows[i].chunks(step)) {
                    own.progress.check()?;
                    let mut list = Recording::new(1);
                    let (count, depth) = (piece.len() as u32, own.pass.shape(batch, x).1);
                    let wanted = |row: &u32| targets[i][*row as usize].wrapping_sub(column);
                    let wanted = list.constant("targets", &piece.iter().map(wanted).collect::<Vec<_>>());
                    let index = list.constant("index", piece);
                    let id = own.pass.value(track, batch, x);
                    let table = Weight { buf: own.pass.buf(&mut list, id), from: 0 };
                    let some = list.scratch("rows", Size::Fixed(count * depth));
                    gather::record(&mut list, (count, depth), table, index, None, some);
                    let weight = Weight { buf: own.pass.buf(&mut list, formed.weight), from: 0 };
                    let bias = formed.bias.map(|id| Weight { buf: own.pass.buf(&mut list, id), from: 0 });
                    let logits = list.scratch("logits", Size::Fixed(count * cols));
                    let place = Place { buf: logits, stride: cols, column: 0 };
                    own.pass.product(&mut list, Shape { rows: count, cols, depth }, some, weight, bias, place);
                    let out = list.result("loss", Size::Fixed(count * loss::WIDTH));
                    loss::record(&mut list, (count, cols), logits, wanted, out);
                    let results = own.pass.run(&list)?;
                    for (row, part) in bytemuck::cast_slice::<u32, Part>(results.words(0)).iter().enumerate() {
                        parts[i][from + row].push((column, *part));
                    }
                }
            }
            if let Some(&batch) = batches.first() {
                own.pass.compare(track, at, batch, formed, cols)?;
            }
            open.unform(&mut own.pass, formed);
            Ok(())
        })?;
        let each = rows.iter().zip(&targets).zip(&parts);
        Ok(each
            .flat_map(|((rows, targets), parts)| {
                rows.iter().zip(parts).map(|(row, parts)| prediction(parts, targets[*row as usize]))
            })
            .collect())
    }

    fn is_affine(&self, at: usize) -> bool {
        let leaf = self.pass.network.ops[at].leaf().expect("an operation with parameters");
        matches!(self.pass.network.leaves[leaf].form, Form::Affine { .. })
    }
}
