//! Which tensors a merge is sensitive to: each one's merged task vector is scaled in turn, and what that does is measured.

use serde::Serialize;

use crate::calibrate::feature::distance;
use crate::error::{Error, Result};
use crate::evaluate::{self, Prediction};
use crate::fast_gemm::{FastGemm, FastReport};
use crate::features::{Runner, Sets};
use crate::forward::Network;
use crate::forward::network::{Op, Rows};
use crate::kernels::factor::Strength;
use crate::parameters::{Library, Version};
use crate::progress::Progress;

/// Name and version of the document.
pub const SCHEMA: &str = "magic-sensitivity/1";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Growth of the loss; needs tokens, or labels.
    Loss,
    /// Fall of the accuracy; needs tokens, or labels.
    Accuracy,
    /// How far the last hidden state moves, relatively; needs neither.
    Drift,
}

impl Metric {
    /// All names.
    pub const WORDS: [&'static str; 3] = ["loss", "accuracy", "drift"];

    /// The metric of that name.
    pub fn named(name: &str) -> Option<Self> {
        let place = Self::WORDS.iter().position(|word| *word == name)?;
        Some([Self::Loss, Self::Accuracy, Self::Drift][place])
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::WORDS[self as usize]
    }
}

/// The document: an object that `--sensitive` takes.
#[derive(Clone, Debug, Serialize)]
pub struct Sensitivity {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// What was measured.
    pub metric: &'static str,
    /// What each task vector was scaled by.
    pub factor: f64,
    /// The metric of the merge as it is; for drift, 0.
    pub before: f64,
    /// Names of the worst tensors.
    pub sensitive: Vec<String>,
    /// All of them, the worst first.
    pub tensors: Vec<Scored>,
    /// What products by cooperative matrices erred by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fast_gemm: Option<FastReport>,
}

/// A tensor and what scaling it does.
#[derive(Clone, Debug, Serialize)]
pub struct Scored {
    /// Its name.
    pub tensor: String,
    /// How much worse the metric gets.
    pub worse: f64,
}

/// What a measurement needs.
pub struct Probe<'a> {
    /// Parameters, with the merge.
    pub library: &'a Library<'a>,
    /// The network.
    pub network: &'a Network,
    /// Samples.
    pub sets: &'a Sets,
    /// What is measured.
    pub metric: Metric,
    /// What each task vector is scaled by.
    pub factor: f64,
    /// Tensors that `sensitive` names at most.
    pub top: usize,
    /// Bytes of hidden states to keep at a time.
    pub budget: u64,
    /// How far it has come.
    pub progress: &'a Progress,
}

/// One perturbed run.
struct Branch {
    leaf: usize,
    block: usize,
    track: usize,
}

impl Probe<'_> {
    /// Scales the weight of each leaf in turn. Networks run side by side from the block of their own weight on.
    ///
    /// # Errors
    /// Samples that the metric cannot use.
    pub fn run(&self) -> Result<Sensitivity> {
        if self.metric != Metric::Drift {
            if self.network.head().is_none() {
                let (model, metric) = (self.library.checkpoints[0].name(), self.metric.name());
                return Err(Error::input(format!("`{model}` has no output head, which `--metric {metric}` needs"))
                    .hint("`--metric drift` needs none"));
            }
            for set in &self.sets.sets {
                evaluate::check(self.network, &self.library.checkpoints[0], set)?;
            }
        }
        let batches = self.sets.batches(self.network);
        let width = u64::from(self.network.values[self.network.hidden.0].1);
        let state: u64 = batches.iter().map(|batch| u64::from(batch.rows(Rows::Positions)) * width * 8).sum();
        let at_once = (self.budget / state.max(1)).clamp(1, 256) as usize;
        let mut all: Vec<(usize, usize)> = Vec::new();
        for (block, ops) in self.network.blocks.iter().enumerate() {
            let leaves = ops.clone().filter_map(|at| self.network.ops[at].leaf());
            let tapped = leaves.filter(|leaf| self.network.leaves[*leaf].tapped);
            let new: Vec<_> = tapped.map(|leaf| (leaf, block)).collect();
            all.extend(
                new.into_iter().filter(|(leaf, _)| all.iter().all(|(known, _)| known != leaf)).collect::<Vec<_>>(),
            );
        }
        let (mut before, mut tensors) = (0.0, Vec::new());
        for group in all.chunks(at_once) {
            let mut runner = Runner::new(
                self.library,
                self.network,
                &batches,
                &self.sets.of,
                &[self.network.seen],
                true,
                self.progress,
            )?;
            let trunk = runner.pass.track(None);
            let branch = |&(leaf, block): &(usize, usize)| {
                let track = runner.pass.track(Some(trunk));
                Branch { leaf, block, track }
            };
            let branches: Vec<Branch> = group.iter().map(branch).collect();
            let (own, scores) = self.group(&mut runner, trunk, &branches)?;
            before = own;
            let name = |branch: &Branch| self.network.leaves[branch.leaf].weight.clone();
            tensors.extend(branches.iter().zip(scores).map(|(b, worse)| Scored { tensor: name(b), worse }));
        }
        tensors.sort_by(|a, b| b.worse.total_cmp(&a.worse));
        let worst = tensors.iter().filter(|scored| scored.worse > 0.0).take(self.top);
        Ok(Sensitivity {
            schema: SCHEMA,
            metric: self.metric.name(),
            factor: self.factor,
            before,
            sensitive: worst.map(|scored| scored.tensor.clone()).collect(),
            tensors,
            fast_gemm: self.library.executor.fast_gemm().and_then(FastGemm::report),
        })
    }

    /// The metric of the trunk, and how much worse each branch is.
    fn group(&self, runner: &mut Runner<'_>, trunk: usize, branches: &[Branch]) -> Result<(f64, Vec<f64>)> {
        let all = runner.batches(None);
        let perturbed = Version::Perturbed(Strength { shift: 0.0, times: self.factor as f32 });
        let mut own = Vec::new();
        let mut predictions = vec![Vec::new(); branches.len()];
        for (block, ops) in self.network.blocks.iter().enumerate() {
            // Branches first: they begin with what the trunk has now, and has no more when it is through the block.
            let live = branches.iter().enumerate().filter(|(_, branch)| branch.block <= block);
            let tracks = live.map(|(i, branch)| (branch.track, Some((i, branch.leaf)))).chain([(trunk, None)]);
            for (track, branch) in tracks {
                for at in ops.clone() {
                    let leaf = self.network.ops[at].leaf();
                    let version = match branch {
                        Some((_, own)) if leaf == Some(own) => perturbed,
                        _ => Version::Merged(Strength::FULL),
                    };
                    match self.network.ops[at] {
                        Op::Head { .. } if self.metric != Metric::Drift => {
                            let made = runner.predict(track, at, &all, version, self.sets)?;
                            match branch {
                                Some((i, _)) => predictions[i] = made,
                                None => own = made,
                            }
                        }
                        _ => runner.step(track, at, &all, version)?,
                    }
                    runner.pass.release(track, at);
                }
            }
            runner.forget(None);
        }
        let before = self.score(&own);
        let mut scores = Vec::new();
        for (branch, made) in branches.iter().zip(&predictions) {
            scores.push(match self.metric {
                Metric::Drift => {
                    let mut distances = Vec::new();
                    for &batch in &all {
                        distances.extend(distance(runner, branch.track, trunk, batch)?);
                    }
                    distances.iter().sum::<f64>() / distances.len().max(1) as f64
                }
                _ => self.score(made) - before,
            });
        }
        let before = if self.metric == Metric::Accuracy { -before } else { before };
        if scores.iter().any(|score| !score.is_finite()) {
            return Err(Error::input("the merge gives no finite numbers on these samples")
                .hint("there are NaN or infinite numbers in a model, or `--factor` is too large"));
        }
        Ok((before, scores))
    }

    /// The metric, larger for worse.
    fn score(&self, predictions: &[Prediction]) -> f64 {
        let summary = evaluate::summary(0, predictions, false);
        match self.metric {
            Metric::Loss => summary.loss,
            Metric::Accuracy => -summary.accuracy,
            Metric::Drift => 0.0,
        }
    }
}
