//! Calibration in feature space while the network streams by: merge, measure, fold and write, leaf by leaf.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::calibrate::candidate::{Candidate, Factors};
use crate::calibrate::fsc::Measured;
use crate::error::{Error, Result};
use crate::features::{Runner, Sets};
use crate::forward::network::{Leaf, Op, Rows, Value};
use crate::forward::{self, Network};
use crate::kernels::add;
use crate::kernels::deviation::{self, Deviation};
use crate::kernels::factor::Strength;
use crate::kernels::matmul::{Place, Shape, Weight};
use crate::parameters::{Library, Version};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::recipe::{Calibrate, Fit, Propagate, Space};
use crate::recording::{Buf, Recording, Size};
use crate::recover::Recovered;
use crate::written::Written;

/// What was measured at a leaf.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeafReport {
    /// Name of its module.
    pub leaf: String,
    /// Its factor in feature space.
    pub xi: f64,
    /// The factor that each expert alone would give, by magnitude, on the merge that `xi` scales: for `dsc`, and where
    /// `auto` takes weight space, that is the one calibrated in weight space.
    pub experts: Vec<f64>,
    /// The same on the merge as it was before weight space, where `auto` has measured that too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uncalibrated: Vec<f64>,
}

/// A candidate and its score.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CandidateReport {
    /// As a person reads it.
    pub name: String,
    /// Space.
    pub space: Cow<'static, str>,
    /// Fit.
    pub fit: Cow<'static, str>,
    /// Strength.
    pub strength: f64,
    /// Scale.
    pub scale: f64,
    /// Mean relative distance from the experts: that of the hidden state and, where they have classifiers, that of the
    /// logits, a half each.
    pub distance: f64,
    /// ‖h − h_t‖ / ‖h_t‖ of what a head sees of the last hidden state.
    pub hidden: f64,
    /// The same of what expert t's own classifier makes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logits: Option<f64>,
    /// Whether it was taken.
    pub chosen: bool,
}

/// What a pass leaves.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// What becomes of the ξ of each tensor of the plan.
    #[serde(skip)]
    pub strengths: Vec<Strength>,
    /// Leaves in network order.
    pub leaves: Vec<LeafReport>,
    /// Candidates, the nearest first.
    pub candidates: Vec<CandidateReport>,
    /// Most bytes of activations at a time.
    pub activation_bytes: u64,
    /// How all this came about, if the device had failed at it.
    pub recovered: Option<Recovered>,
}

/// All that a pass needs.
pub struct FeaturePass<'a> {
    /// Parameters.
    pub library: &'a Library<'a>,
    /// The merge.
    pub plan: &'a Plan,
    /// The network.
    pub network: &'a Network,
    /// Samples.
    pub sets: &'a Sets,
    /// What was asked.
    pub calibrate: &'a Calibrate,
    /// Tensors whose ξ may only shrink.
    pub sensitive: Option<&'a HashSet<String>>,
    /// How far it has come.
    pub progress: &'a Progress,
}

impl FeaturePass<'_> {
    /// Whether features are measured at a leaf.
    fn tapped(&self, leaf: &Leaf) -> bool {
        leaf.tapped && !self.plan.uncalibrated.is_match(&leaf.weight)
    }

    fn is_sensitive(&self, leaf: &Leaf) -> bool {
        self.sensitive.is_some_and(|names| names.contains(&leaf.weight))
    }

    fn bounded(&self, leaf: &Leaf, xi: f64) -> f64 {
        if self.is_sensitive(leaf) { xi.min(1.0) } else { xi }
    }

    /// What `candidate` makes of a leaf; no scale lengthens a sensitive one.
    fn strength(&self, candidate: Candidate, leaf: &Leaf, factors: &Factors) -> Strength {
        let scale = if self.is_sensitive(leaf) { candidate.scale.min(1.0) } else { candidate.scale };
        Candidate { scale, ..candidate }.strength(factors)
    }

    /// What is measured at a leaf.
    ///
    /// # Errors
    /// Features that are not finite: what comes of them would say nothing, and nor would all that comes after.
    fn measured(&self, runner: &mut Runner<'_>, track: usize, at: usize, strength: Strength) -> Result<Measured> {
        let measured = runner.measure(track, at, strength)?;
        let Some(k) = measured.not_finite() else { return Ok(measured) };
        let leaf = &self.network.leaves[self.network.ops[at].leaf().expect("a leaf was measured")];
        let sources = self.tensors(leaf).into_iter().find_map(|tensor| self.plan.tensors[tensor].sources.get(1 + k));
        let expert = sources.map_or("an expert", |source| self.library.checkpoints[source.checkpoint].name());
        let what = format!("the features of `{}` are not finite on the samples of `{expert}`", leaf.name);
        Err(Error::input(what)
            .hint("there are NaN or infinite numbers in a model, or its values overflow on these samples")
            .hint("weight-space calibration looks at no features: `--calibrate wsc`"))
    }

    /// Places in the plan of a leaf's tensors.
    fn tensors(&self, leaf: &Leaf) -> Vec<usize> {
        let names = [Some(&leaf.weight), leaf.bias.as_ref(), leaf.copy.as_ref()];
        let place = |name: &String| self.plan.tensors.iter().position(|tensor| tensor.name == *name);
        names.into_iter().flatten().filter_map(place).collect()
    }

    /// FSC and DSC: one pass, in which each leaf that was loaded whole is written at once, if there is a sink.
    pub fn run(&self, sink: Option<&Written<'_>>) -> Result<Outcome> {
        let batches = self.sets.batches(self.network);
        let (network, norm, fit) = (self.network, self.calibrate.feature_norm, self.calibrate.fit);
        let mut runner = Runner::new(self.library, network, &batches, &self.sets.of, &[], false, self.progress)?;
        let all = runner.batches(None);
        let mut outcome = Outcome { strengths: vec![Strength::FULL; self.plan.tensors.len()], ..Outcome::default() };
        let track = runner.pass.track(None);
        runner.announce(1);
        for at in 0..network.ops.len() {
            let Some(leaf) = network.ops[at].leaf().filter(|leaf| !self.is_tied(at, *leaf)) else {
                if !matches!(network.ops[at], Op::Head { .. }) {
                    runner.step(track, at, &all, Version::Base)?;
                    runner.pass.release(track, at);
                }
                continue;
            };
            let leaf = &network.leaves[leaf];
            let mut strength = Strength::FULL;
            if self.tapped(leaf) && runner.is_merged(at)? {
                let measured = self.measured(&mut runner, track, at, Strength::FULL)?;
                let xi = self.bounded(leaf, measured.factor(fit, norm));
                let factors = Factors { fsc: [xi; 2], dsc: [xi; 2] };
                strength = Candidate::full(self.calibrate.space, fit).strength(&factors);
                let experts = measured.ratios(norm);
                outcome.leaves.push(LeafReport { leaf: leaf.name.clone(), xi, experts, uncalibrated: Vec::new() });
            }
            let seen = if self.calibrate.propagate == Propagate::Calibrated { strength } else { Strength::FULL };
            runner.step(track, at, &all, Version::Merged(seen))?;
            runner.pass.release(track, at);
            self.tensors(leaf).into_iter().for_each(|tensor| outcome.strengths[tensor] = strength);
            let (open, loaded) = runner.take(at)?;
            if let Some(loaded) = loaded {
                if let Some(sink) = sink {
                    open.write(&loaded, sink, strength, self.progress)?;
                }
                open.unload(loaded);
            }
        }
        outcome.activation_bytes = runner.pass.kept.peak();
        Ok(outcome)
    }

    /// True for an output head that is the embedding, which has its factor already.
    fn is_tied(&self, at: usize, leaf: usize) -> bool {
        matches!(self.network.ops[at], Op::Head { .. }) && leaf == 0
    }

    /// The best of all candidates: the one that lies nearest the experts' own results. Nothing is written.
    ///
    /// Nearness of hidden states alone would favour merges that are too short: where a merge holds only a part of each
    /// expert's move, shrinking what interferes brings it nearer, and what a classifier reads, which is direction, does
    /// not get better by it. Where the experts have classifiers, those are asked too.
    pub fn choose(&self) -> Result<Outcome> {
        let batches = self.sets.batches(self.network);
        let (network, norm) = (self.network, self.calibrate.feature_norm);
        let reads = network.classified.unwrap_or(network.seen);
        let mut runner =
            Runner::new(self.library, network, &batches, &self.sets.of, &[network.seen, reads], true, self.progress)?;
        let candidates = Candidate::all();
        let tracks: Vec<(usize, Kind)> = (0..candidates.len())
            .map(Kind::Candidate)
            .chain((0..self.sets.of.len()).map(Kind::Expert))
            .map(|kind| (runner.pass.track(None), kind))
            .collect();
        runner.announce(tracks.len());
        let mut factors = vec![Factors::ONE; network.leaves.len()];
        let mut ratios = vec![<[Vec<f64>; 2]>::default(); network.leaves.len()];
        let end = network.ops.iter().rposition(|op| [network.seen, reads].map(Some).contains(&op.writes()));
        let end = end.expect("both are computed");
        for block in &network.blocks {
            for &(track, kind) in &tracks {
                let own = runner.batches(match kind {
                    Kind::Expert(k) => Some(k),
                    Kind::Candidate(_) => None,
                });
                let measures = matches!(kind, Kind::Candidate(0 | 1));
                for at in block.clone().filter(|at| *at <= end || measures) {
                    let mut version = Version::Base;
                    if let Some(leaf) = network.ops[at].leaf().filter(|leaf| !self.is_tied(at, *leaf)) {
                        let part = &network.leaves[leaf];
                        if measures && self.tapped(part) && runner.is_merged(at)? {
                            let Kind::Candidate(space) = kind else { unreachable!("experts measure nothing") };
                            let strength = candidates[space].strength(&Factors::ONE);
                            let measured = self.measured(&mut runner, track, at, strength)?;
                            let xi = [Fit::Magnitude, Fit::Projection]
                                .map(|fit| self.bounded(part, measured.factor(fit, norm)));
                            match space {
                                0 => factors[leaf].fsc = xi,
                                _ => factors[leaf].dsc = xi,
                            }
                            ratios[leaf][space] = measured.ratios(norm);
                        }
                        version = match kind {
                            Kind::Expert(k) => Version::Expert(k),
                            Kind::Candidate(i) => Version::Merged(self.strength(candidates[i], part, &factors[leaf])),
                        };
                    }
                    runner.step(track, at, &own, version)?;
                    runner.pass.release(track, at);
                }
            }
            runner.forget(None);
        }
        let (tries, own) = tracks.split_at(candidates.len());
        let hidden = self.distances(&mut runner, tries, own, |runner, track, other, _, batch| {
            distance(runner, track, other, batch)
        })?;
        let logits = self.logits(&mut runner, tries, own, reads)?;
        let total = |i: usize| logits.as_ref().map_or(hidden[i], |logits| (hidden[i] + logits[i]) / 2.0);
        let best = (0..candidates.len()).min_by(|&a, &b| total(a).total_cmp(&total(b))).unwrap_or(0);
        let chosen = candidates[best];
        let mut strengths = vec![chosen.strength(&Factors::ONE); self.plan.tensors.len()];
        let mut leaves = Vec::new();
        for (leaf, part) in network.leaves.iter().enumerate() {
            let strength = self.strength(chosen, part, &factors[leaf]);
            self.tensors(part).into_iter().for_each(|tensor| strengths[tensor] = strength);
            let [plain, weighed] = std::mem::take(&mut ratios[leaf]);
            if !plain.is_empty() {
                let one = Candidate { strength: 1.0, scale: 1.0, ..chosen };
                let Strength { shift, times } = one.strength(&factors[leaf]);
                let (xi, experts, uncalibrated) = match one.space {
                    Space::Wsc | Space::Dsc => (times, weighed, plain),
                    _ => (shift, plain, Vec::new()),
                };
                leaves.push(LeafReport { leaf: part.name.clone(), xi: xi.into(), experts, uncalibrated });
            }
        }
        let report = |i: usize| CandidateReport {
            name: candidates[i].name(),
            space: candidates[i].space.as_str().into(),
            fit: candidates[i].fit.as_str().into(),
            strength: candidates[i].strength,
            scale: candidates[i].scale,
            distance: total(i),
            hidden: hidden[i],
            logits: logits.as_ref().map(|logits| logits[i]),
            chosen: i == best,
        };
        let mut table: Vec<_> = (0..candidates.len()).map(report).collect();
        table.sort_by(|a, b| a.distance.total_cmp(&b.distance));
        let activation_bytes = runner.pass.kept.peak();
        Ok(Outcome { strengths, leaves, candidates: table, activation_bytes, recovered: None })
    }

    /// mean over experts and samples of what `distance` gives for a candidate, an expert's track, the expert and a batch.
    fn distances<'r>(
        &self,
        runner: &mut Runner<'r>,
        candidates: &[(usize, Kind)],
        experts: &[(usize, Kind)],
        mut distance: impl FnMut(&mut Runner<'r>, usize, usize, usize, usize) -> Result<Vec<f64>>,
    ) -> Result<Vec<f64>> {
        let mut all = Vec::new();
        for &(candidate, _) in candidates {
            let mut mean = 0.0;
            for (k, &(expert, _)) in experts.iter().enumerate() {
                let mut distances = Vec::new();
                for batch in runner.batches(Some(k)) {
                    distances.extend(distance(runner, candidate, expert, k, batch)?);
                }
                mean += distances.iter().sum::<f64>() / distances.len().max(1) as f64 / experts.len() as f64;
            }
            all.push(if mean.is_finite() { mean } else { f64::INFINITY });
        }
        Ok(all)
    }

    /// The same of logits, by each expert's own classifier; `None` unless all have one.
    fn logits(
        &self,
        runner: &mut Runner<'_>,
        candidates: &[(usize, Kind)],
        experts: &[(usize, Kind)],
        reads: Value,
    ) -> Result<Option<Vec<f64>>> {
        let sources =
            self.plan.tensors.iter().find(|tensor| tensor.experts() == experts.len() && tensor.sources.len() > 1);
        let Some(sources) = sources.filter(|_| self.network.classified.is_some()).map(|tensor| &tensor.sources[1..])
        else {
            return Ok(None);
        };
        let mut heads = Vec::new();
        for source in &sources[..experts.len()] {
            let expert = &self.library.checkpoints[source.checkpoint];
            if expert.get("classifier.weight").is_none() {
                return Ok(None);
            }
            let network = forward::network_with(&self.library.checkpoints[0], Some(expert))?;
            let (leaf, _) = network.head().expect("it has a classifier");
            let library = Library { checkpoints: std::slice::from_ref(expert), merge: None, ..*self.library };
            let open = library.open(&network.leaves[leaf], None)?;
            let loaded = open.load(0)?;
            heads.push((open.form(&mut runner.pass, &loaded, Version::Base)?, network.outputs(leaf)));
            open.unload(loaded);
        }
        self.distances(runner, candidates, experts, |runner, track, other, k, batch| {
            let (formed, cols) = heads[k];
            let (rows, depth) = runner.pass.shape(batch, reads);
            let mut list = Recording::new(1);
            let weight = Weight { buf: runner.pass.buf(&mut list, formed.weight), from: 0 };
            let bias = formed.bias.map(|id| Weight { buf: runner.pass.buf(&mut list, id), from: 0 });
            let [x, y] = [track, other].map(|track| {
                let id = runner.pass.value(track, batch, reads);
                let (value, logits) =
                    (runner.pass.buf(&mut list, id), list.scratch("logits", Size::Fixed(rows * cols)));
                let place = Place { buf: logits, stride: cols, column: 0 };
                runner.pass.product(&mut list, Shape { rows, cols, depth }, value, weight, bias, place);
                logits
            });
            apart(runner, list, (rows, cols), x, y, (0..rows).map(|row| row..row + 1).collect())
        })
        .map(Some)
    }
}

/// What a track runs with.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Candidate(usize),
    Expert(usize),
}

/// ‖h − h'‖ / ‖h'‖ of what a head sees of two tracks' last hidden states, for each sample of a batch.
pub fn distance(runner: &mut Runner<'_>, track: usize, other: usize, batch: usize) -> Result<Vec<f64>> {
    let seen = runner.pass.network.seen;
    let shape = runner.pass.shape(batch, seen);
    let mut list = Recording::new(1);
    let [x, y] = [track, other].map(|track| {
        let id = runner.pass.value(track, batch, seen);
        runner.pass.buf(&mut list, id)
    });
    let own = &runner.pass.batches[batch];
    let spans = match runner.pass.network.values[seen.0].0 {
        Rows::Samples => (0..shape.0).map(|row| row..row + 1).collect(),
        _ => own.spans.clone(),
    };
    apart(runner, list, shape, x, y, spans)
}

/// ‖x − y‖ / ‖y‖ of the rows of each span; 0/0 is 0.
fn apart(
    runner: &mut Runner<'_>,
    mut list: Recording,
    shape: (u32, u32),
    x: Buf,
    y: Buf,
    spans: Vec<Range<u32>>,
) -> Result<Vec<f64>> {
    let difference = list.scratch("difference", Size::Fixed(shape.0 * shape.1));
    let stats = list.result("deviation", Size::Fixed(shape.0 * deviation::WIDTH));
    add::record(&mut list, shape, 1.0, x, -1.0, y, difference);
    deviation::record(&mut list, shape, difference, y, stats);
    let results = runner.pass.run(&list)?;
    let rows: &[Deviation] = bytemuck::cast_slice(results.words(0));
    let of = |span: Range<u32>| {
        let rows = &rows[span.start as usize..span.end as usize];
        let sum = |of: fn(&Deviation) -> f32| rows.iter().map(|row| f64::from(of(row))).sum::<f64>();
        let (apart, size) = (sum(|row| row.square_a).sqrt(), sum(|row| row.square_c).sqrt());
        if apart == 0.0 { 0.0 } else { apart / size }
    };
    Ok(spans.into_iter().map(of).collect())
}
