//! What a job computes: all of its tensors or some, factors of feature space, what experts have learned.

use std::collections::HashSet;
use std::time::Instant;

use serde_json::Value;

use super::Job;
use crate::calibrate::feature::{FeaturePass, Outcome};
use crate::checkpoint::Sink;
use crate::error::{Error, Result};
use crate::kernels::factor::Strength;
use crate::merge::Merge;
use crate::parameters::Library;
use crate::progress::Progress;
use crate::recipe::Space;
use crate::recover;
use crate::report::TensorReport;
use crate::sensitivity::{Metric, Probe, Sensitivity};
use crate::stream::Engine;
use crate::survey::{Forget, TaskVectors, survey};
use crate::written::Written;

/// Bytes of hidden states that sensitivity may keep at a time, at least.
const STATES: u64 = 512 << 20;

impl Job {
    /// Computes the tensors that `sink` wants, and hands them to it; their reports come with their places.
    pub(crate) fn compute(
        &self,
        sink: &dyn Sink,
        progress: &Progress,
    ) -> Result<(Vec<(usize, TensorReport)>, Outcome)> {
        let started = Instant::now();
        let engine = self.engine(progress);
        let written = Written::new(sink);
        let outcome = self.measure(&engine, Some(&written), progress)?;
        log::info!("pass: {:.3} s", started.elapsed().as_secs_f64());
        let mut made = written.into_reports();
        let done: HashSet<usize> = made.iter().map(|(tensor, _)| *tensor).collect();
        let missing = |tensor: &usize| sink.wants(*tensor) && !done.contains(tensor);
        let rest: Vec<usize> = (0..self.plan.tensors.len()).filter(missing).collect();
        let (plan, strengths) = (&self.plan, &outcome.strengths);
        made.extend(
            Merge { plan, engine, others: &self.opened.others, sink, strengths, wanted: &self.wanted }.run(&rest)?,
        );
        Ok((made, outcome))
    }

    /// Computes the tensors `which` alone, hands them to `sink`, and returns what is to be said of them, in that order.
    /// What takes feature space must have been [measured](Self::take_measured).
    pub(crate) fn compute_some(&self, sink: &dyn Sink, which: &[usize], progress: &Progress) -> Result<Vec<Value>> {
        let engine = self.engine(progress);
        let strengths = &self.measure(&engine, None, progress)?.strengths;
        let (plan, others) = (&self.plan, &*self.opened.others);
        let mut reports = Merge { plan, engine, others, sink, strengths, wanted: &self.wanted }.run(which)?;
        reports.sort_by_key(|(tensor, _)| *tensor);
        Ok(reports.iter().map(|(_, report)| report.record()).collect())
    }

    /// Measures in feature space, and writes nothing.
    pub(crate) fn measure_all(&self, progress: &Progress) -> Result<Outcome> {
        let engine = self.engine(progress);
        self.measure(&engine, None, progress)
    }

    /// Takes over what was measured elsewhere.
    pub(crate) fn take_measured(&mut self, outcome: Outcome) {
        self.measured = Some(outcome);
    }

    /// What the experts have learned, tensor by tensor, if this merge is their mean. Nothing is written.
    ///
    /// # Errors
    /// Whatever goes wrong on the way, and an interrupt.
    #[doc(hidden)]
    pub fn survey(&self, progress: &Progress) -> Result<Vec<TaskVectors>> {
        let (reports, _) = self.compute(&Forget, progress)?;
        let engine = self.engine(progress);
        self.plan.memory.pool()?.install(|| survey(&engine, &self.wanted, &self.plan.tensors, &reports))
    }

    /// Feature space: what becomes of every tensor's ξ, and the tensors that are written on the way.
    pub(super) fn measure(
        &self,
        engine: &Engine<'_>,
        sink: Option<&Written<'_>>,
        progress: &Progress,
    ) -> Result<Outcome> {
        if let Some(measured) = &self.measured {
            return Ok(measured.clone());
        }
        let Some(features) = &self.features else {
            let strengths = vec![Strength::FULL; self.plan.tensors.len()];
            return Ok(Outcome { strengths, ..Outcome::default() });
        };
        let run = |engine: &Engine<'_>, again: bool| {
            let mut library = self.library(engine);
            library.budget /= if again { 2 } else { 1 };
            let pass = FeaturePass {
                library: &library,
                plan: &self.plan,
                network: &features.network,
                sets: &features.sets,
                calibrate: &self.recipe.calibrate,
                sensitive: self.sensitive.as_ref(),
                progress,
            };
            if self.recipe.calibrate.space == Space::Auto { pass.choose() } else { pass.run(sink) }
        };
        let pool = self.plan.memory.pool()?;
        let done = pool.install(|| recover::attempt(&self.wanted, "the pass through the network", engine, run));
        done.map(|(outcome, recovered)| Outcome { recovered, ..outcome })
    }

    /// Which tensors the merge is sensitive to, on the recipe's samples. Nothing is written.
    ///
    /// # Errors
    /// A recipe that is not calibrated in feature space, samples that the metric cannot use.
    #[doc(hidden)]
    pub fn sensitivity(&self, metric: Metric, factor: f64, top: usize, progress: &Progress) -> Result<Sensitivity> {
        let Some(features) = &self.features else {
            return Err(Error::usage("sensitivity is measured on samples").hint("add `--data PATH`"));
        };
        let engine = self.engine(progress);
        let library = self.library(&engine);
        let probe = Probe {
            library: &library,
            network: &features.network,
            sets: &features.sets,
            metric,
            factor,
            top,
            budget: STATES.max(self.plan.memory.parameters()),
            progress,
        };
        self.plan.memory.pool()?.install(|| probe.run())
    }

    /// What computes, and where from.
    pub(super) fn engine<'a>(&'a self, progress: &'a Progress) -> Engine<'a> {
        Engine { checkpoints: &self.checkpoints, executor: &self.opened.executor, progress }
    }

    fn library<'a>(&'a self, engine: &'a Engine<'a>) -> Library<'a> {
        Library {
            checkpoints: &self.checkpoints,
            head: None,
            executor: engine.executor,
            merge: Some((&self.plan, engine)),
            budget: self.plan.memory.parameters(),
        }
    }
}
