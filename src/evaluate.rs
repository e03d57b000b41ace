//! What a model makes of samples: its loss, its accuracy, and the values on the way.

use std::path::Path;

use crate::checkpoint::{Checkpoint, quantized};
use crate::data::{self, Sample, Samples};
use crate::device::{self, Wanted};
use crate::error::{Error, Result};
use crate::executor::Executor;
use crate::features::{Runner, Sets};
use crate::forward::network::{Op, Value};
use crate::forward::{self, Network};
use crate::kernels::loss::Part;
use crate::lora;
use crate::parameters::{Library, Version};
use crate::progress::Progress;

/// Measures of a model on one set of samples.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// Path of the samples, fit for a message.
    pub data: String,
    /// Samples.
    pub samples: usize,
    /// Predictions: tokens of a language model, samples of a classifier.
    pub predictions: usize,
    /// Mean cross entropy of a prediction, in nats.
    pub loss: f64,
    /// exp(loss), for language models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perplexity: Option<f64>,
    /// Share of right predictions, 0 to 1.
    pub accuracy: f64,
    /// What of the samples was left out or cut short, each a line.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// A prediction: its loss, and whether it was right.
#[derive(Clone, Copy, Debug)]
pub struct Prediction {
    /// Cross entropy in nats.
    pub loss: f64,
    /// Whether the target had the largest logit.
    pub right: bool,
}

/// Loss and accuracy of the model `spec` on the samples at `data`: a `.safetensors`, `.txt` or `.jsonl` file, or a folder
/// of images. A classifier may be borrowed from another model, `head`. A model is named as for
/// [`Checkpoint::open`], or as `MODEL+ADAPTER`.
///
/// # Errors
/// A model that cannot be opened or whose architecture is not known, samples that it cannot take, a device that is not
/// there, and an interrupt.
///
/// ```
/// use magic_merge::{Progress, Wanted, evaluate};
///
/// # fn main() -> magic_merge::Result<()> {
/// let (model, data) = ("assets/demo/expert_digits", "assets/demo/samples/digits.test.safetensors");
/// let found = evaluate(model, None, data.as_ref(), &Wanted::on("cpu"), &Progress::default())?;
/// assert!(found.accuracy > 0.8 && found.perplexity.is_none());
/// # Ok(())
/// # }
/// ```
pub fn evaluate(
    spec: &str,
    head: Option<&str>,
    data: &Path,
    wanted: &Wanted,
    progress: &Progress,
) -> Result<Evaluation> {
    let specs = [Some(spec), head];
    let checkpoints: Vec<Checkpoint> =
        specs.into_iter().flatten().map(|spec| lora::open(spec, &[])).collect::<Result<_>>()?;
    let opened = device::open(wanted)?;
    let model = Model::new(&checkpoints, &opened.executor, opened.memory.parameters())?;
    let samples = model.samples(data, None)?;
    opened.memory.pool()?.install(|| model.evaluate(samples, progress))
}

/// Sums up predictions.
pub fn summary(samples: usize, predictions: &[Prediction], tokens: bool) -> Evaluation {
    let count = predictions.len().max(1) as f64;
    let loss = predictions.iter().map(|p| p.loss).sum::<f64>() / count;
    Evaluation {
        data: String::new(),
        samples,
        predictions: predictions.len(),
        loss,
        perplexity: tokens.then_some(loss.exp()),
        accuracy: predictions.iter().filter(|p| p.right).count() as f64 / count,
        warnings: Vec::new(),
    }
}

/// A model to be run on its own.
pub struct Model<'a> {
    /// The network.
    pub network: Network,
    /// The checkpoint, and, where the classifier is another's, that.
    pub checkpoints: &'a [Checkpoint],
    /// What runs it.
    pub executor: &'a Executor,
    /// Bytes of parameters to load at a time.
    pub budget: u64,
}

impl<'a> Model<'a> {
    /// The model in `checkpoints[0]`, with the classifier of `checkpoints[1]` if there is one.
    ///
    /// # Errors
    /// An architecture that is not known, another's classifier that is not there or cannot be used.
    pub fn new(checkpoints: &'a [Checkpoint], executor: &'a Executor, budget: u64) -> Result<Self> {
        checkpoints.iter().try_for_each(quantized::refuse)?;
        let network = forward::network_with(&checkpoints[0], checkpoints.get(1))?;
        if let Some(head) = checkpoints.get(1) {
            check_head(&network, &checkpoints[0], head)?;
        }
        Ok(Self { network, checkpoints, executor, budget })
    }

    fn library(&self) -> Library<'_> {
        Library {
            checkpoints: &self.checkpoints[..1],
            head: self.checkpoints.get(1),
            executor: self.executor,
            merge: None,
            budget: self.budget,
        }
    }

    /// Loss and accuracy on `samples`.
    ///
    /// # Errors
    /// A model without an output head or without finite results, samples without the labels that it needs, with labels
    /// outside the head, or of one token only.
    pub fn evaluate(&self, samples: Samples, progress: &Progress) -> Result<Evaluation> {
        let tokens = check(&self.network, &self.checkpoints[0], &samples)?;
        let (count, data, warnings) = (samples.samples.len(), samples.name.clone(), samples.warnings.clone());
        let sets = Sets { sets: vec![samples], of: vec![0] };
        let library = self.library();
        let batches = sets.batches(&self.network);
        let mut runner = Runner::new(&library, &self.network, &batches, &sets.of, &[], false, progress)?;
        let track = runner.pass.track(None);
        let all = runner.batches(None);
        let mut predictions = Vec::new();
        for at in 0..self.network.ops.len() {
            if matches!(self.network.ops[at], Op::Head { .. }) {
                predictions = runner.predict(track, at, &all, Version::Base, &sets)?;
            } else {
                runner.step(track, at, &all, Version::Base)?;
            }
            runner.pass.release(track, at);
            runner.forget(Some(at));
        }
        let found = summary(count, &predictions, tokens);
        match found.loss.is_finite() {
            true => Ok(Evaluation { data, warnings, ..found }),
            false => Err(Error::input(format!("`{}` gives no finite loss on `{data}`", self.checkpoints[0].name()))
                .hint("there are NaN or infinite numbers in its weights, or its values overflow")),
        }
    }

    /// At most `limit` of the samples at `path`, with classes numbered as the classifier's are.
    ///
    /// # Errors
    /// As [`data::load`] and [`Model::relabel`].
    pub fn samples(&self, path: &Path, limit: Option<usize>) -> Result<Samples> {
        let mut samples = data::load(path, &self.network.wants, &self.checkpoints[0], limit)?;
        self.relabel(&mut samples)?;
        Ok(samples)
    }

    /// Numbers classes that the samples name as the classifier's `label2id` does. Where it names none itself, the names
    /// stay numbered in their order, and a warning says so.
    ///
    /// # Errors
    /// A name that a classifier with names does not know.
    pub fn relabel(&self, samples: &mut Samples) -> Result<()> {
        let (Some(labels), false) = (&mut samples.labels, samples.classes.is_empty()) else { return Ok(()) };
        let config = self.checkpoints.last().expect("at least the model").config()?;
        let numbers = config.as_ref().and_then(|config| config.get("label2id")).and_then(|map| map.as_object());
        let named = numbers.filter(|map| !map.keys().all(|name| name.starts_with("LABEL_")));
        let Some(named) = named else {
            let order: Vec<String> =
                samples.classes.iter().enumerate().map(|(i, name)| format!("`{name}` is {i}")).collect();
            samples.warnings.push(format!("the classifier names no classes, so that {}", order.join(", ")));
            return Ok(());
        };
        let number = |name: &String| {
            let number = named.get(name).and_then(|number| number.as_u64()).and_then(|n| u32::try_from(n).ok());
            number.ok_or_else(|| {
                let known: Vec<&str> = named.keys().take(20).map(String::as_str).collect();
                Error::input(format!("`{}`: the classifier knows no class `{name}`", samples.name))
                    .hint(format!("its classes (`label2id`) are {}", known.join(", ")))
            })
        };
        let known: Vec<u32> = samples.classes.iter().map(number).collect::<Result<_>>()?;
        labels.iter_mut().for_each(|label| *label = known[*label as usize]);
        Ok(())
    }

    /// The value `wanted` for every sample: `[rows, width]` each.
    pub fn values(&self, samples: Samples, wanted: Value, progress: &Progress) -> Result<Vec<Vec<f32>>> {
        let sets = Sets { sets: vec![samples], of: vec![0] };
        let library = self.library();
        let batches = sets.batches(&self.network);
        let mut runner = Runner::new(&library, &self.network, &batches, &sets.of, &[wanted], false, progress)?;
        let track = runner.pass.track(None);
        let all = runner.batches(None);
        for at in 0..self.network.ops.len() {
            runner.step(track, at, &all, Version::Base)?;
            runner.pass.release(track, at);
            runner.forget(Some(at));
        }
        let mut values = Vec::new();
        for &batch in &all {
            let all = runner.pass.read_back(track, batch, wanted)?;
            let width = self.network.values[wanted.0].1 as usize;
            let spans = &runner.pass.batches[batch].spans;
            values
                .extend(spans.iter().map(|span| all[span.start as usize * width..span.end as usize * width].to_vec()));
        }
        Ok(values)
    }
}

/// Whether the head predicts tokens, after a look that samples and head fit each other.
///
/// # Errors
/// As [`Model::evaluate`].
pub fn check(network: &Network, model: &Checkpoint, samples: &Samples) -> Result<bool> {
    let Some((leaf, tokens)) = network.head() else {
        return Err(Error::input(format!("`{}` has no output head to evaluate", model.name()))
            .hint("an expert's own classifier will do: `--head EXPERT`"));
    };
    if tokens {
        let short = |sample: &Sample| matches!(sample, Sample::Tokens(ids) if ids.len() < 2);
        if samples.samples.iter().all(short) {
            let what =
                format!("every sample of `{}` is a single token, after which nothing is predicted", samples.name);
            return Err(Error::input(what).hint("give samples of at least two tokens"));
        }
        return Ok(true);
    }
    let classes = network.outputs(leaf);
    let Some(labels) = &samples.labels else {
        return Err(Error::input(format!("`{}` has no labels, which accuracy needs", samples.name)).hint(
            "labels are a `labels` tensor, a `label` in each line of .jsonl, or a folder of images for each class",
        ));
    };
    match labels.iter().enumerate().find(|(_, label)| **label >= classes) {
        Some((i, label)) => Err(Error::input(format!(
            "`{}`: sample {i} has label {label}, and the head has {classes} classes (0 to {})",
            samples.name,
            classes - 1
        ))
        .hint("labels and classifier belong together: give samples of the task that it was trained on")),
        None => Ok(false),
    }
}

/// Whether `head` has a classifier, and the network takes it.
fn check_head(network: &Network, model: &Checkpoint, head: &Checkpoint) -> Result<()> {
    let (model, name) = (model.name(), head.name());
    if !head.tensors().iter().any(|tensor| forward::is_head(&tensor.name)) {
        return Err(Error::input(format!("`{name}` has no classifier: no tensor `classifier.*`"))
            .hint("name a checkpoint that was fine-tuned as a classifier: `--head EXPERT`"));
    }
    match network.head() {
        Some((leaf, _)) if forward::is_head(&network.leaves[leaf].weight) => Ok(()),
        _ => Err(Error::input(format!("`{model}` cannot be used with the classifier of `{name}`"))
            .hint("a language model has a head of its own: leave `--head` out")),
    }
}

/// The prediction that the parts of a row's logits make.
pub fn prediction(parts: &[(u32, Part)], target: u32) -> Prediction {
    let most = parts.iter().map(|(_, part)| f64::from(part.largest)).fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = parts.iter().map(|(_, part)| f64::from(part.total) * (f64::from(part.largest) - most).exp()).sum();
    let chosen = parts.iter().find(|(_, part)| part.behind >= 0.0 || part.behind.is_nan());
    let logit = chosen.map_or(f64::NAN, |(_, part)| f64::from(part.largest) - f64::from(part.behind));
    let best = parts.iter().find(|(_, part)| f64::from(part.largest) == most);
    let right = best.is_some_and(|(first, part)| first + part.best as u32 == target);
    Prediction { loss: most - logit + total.ln(), right }
}
