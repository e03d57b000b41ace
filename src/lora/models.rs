//! The models of a merge: whole ones, and adapters over their base.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::adapter::{Adapter, Form};
use super::layer::{Layer, zeros};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::text::shown;
use crate::error::{Error, Kind, Result};

/// The models of a merge, opened.
#[derive(Debug)]
pub struct Models {
    /// The base or what stands in for it, then the experts, each once.
    pub checkpoints: Vec<Checkpoint>,
    /// The adapters among them.
    pub layers: Vec<Option<Arc<Layer>>>,
    /// Whether the base is all zeros, because the models are adapters alone.
    pub zeros: bool,
}

/// Opens a whole model, or the model and the adapter of `MODEL+ADAPTER`.
///
/// # Errors
/// As [`Checkpoint::open`], an adapter without its base, an adapter that does not fit.
pub fn open(spec: &str, search: &[PathBuf]) -> Result<Checkpoint> {
    let whole = Checkpoint::open_any(spec, search);
    match (whole, spec.split_once('+')) {
        // A path may hold a plus; only where there is nothing at it, an adapter is meant.
        (Err(error), Some((model, adapter))) if error.kind() == Kind::Usage && !model.is_empty() => {
            if let (Some((one, two)), Err(_)) = (adapter.split_once('+'), Checkpoint::open_any(adapter, search)) {
                let [model, one, two] = [model, one, two].map(shown);
                let each = format!("name each as a model of its own: `--model {model}+{one} --model {model}+{two}`");
                return Err(Error::usage(format!("`{}` has more than one adapter", shown(spec)))
                    .hint(format!("only one adapter per model is possible; {each}")));
            }
            match open_on(adapter, model, search)? {
                Ok(layer) => Ok(layer.checkpoint(spec)),
                Err(_) => {
                    let what =
                        format!("`{}` is a whole model, not an adapter to put on `{}`", shown(adapter), shown(model));
                    Err(Error::usage(what).hint("name it as a model of its own"))
                }
            }
        }
        (Err(error), _) => Err(error),
        (Ok((opened, false)), _) => Ok(opened),
        (Ok((_, true)), _) => Checkpoint::open(spec, search),
    }
}

/// An adapter over `base`, or a whole model.
fn open_on(spec: &str, base: &str, search: &[PathBuf]) -> Result<std::result::Result<Arc<Layer>, Checkpoint>> {
    match Adapter::find(spec, search) {
        Ok(Ok(adapter)) => Layer::over(adapter, open(base, search)?).map(Ok),
        Ok(Err(whole)) => Ok(Err(whole)),
        Err(error) if error.kind() == Kind::Usage && spec.contains('+') => open(spec, search).map(Err),
        Err(error) => Err(error),
    }
}

impl Models {
    /// Opens the base, if there is one, and `models`. Without a base, adapters alone are put on zeros if `alone` says that
    /// the result is an adapter; files of diffusion tools always are.
    ///
    /// # Errors
    /// Whatever is wrong with a model; an adapter in the place of the base, or without one.
    pub fn open(base: Option<&str>, reference: &str, models: &[&str], alone: bool, search: &[PathBuf]) -> Result<Self> {
        if let Some(base) = base {
            return Self::on(base, reference, models, search);
        }
        let mut whole = Self { checkpoints: Vec::new(), layers: Vec::new(), zeros: false };
        let mut adapters: Vec<(&str, Adapter)> = Vec::new();
        for &spec in unique(models).iter() {
            match Adapter::find(spec, search) {
                Ok(Ok(adapter)) => adapters.push((spec, adapter)),
                Ok(Err(opened)) => whole.push(opened, None),
                Err(error) if error.kind() == Kind::Usage && spec.contains('+') => {
                    whole.push(open(spec, search)?, None)
                }
                Err(error) => return Err(error),
            }
        }
        let Some((spec, first)) = adapters.first() else { return Ok(whole) };
        let needs = |what: &str| {
            Error::usage(format!("`{}` is an adapter, {what}", shown(spec)))
                .hint("name the model that it was trained on: `--base PATH`, or `base_model:` in the recipe")
        };
        if !whole.checkpoints.is_empty() {
            return Err(needs("and others are whole models: it needs a base to stand on"));
        }
        if adapters.iter().any(|(_, adapter)| adapter.form != first.form) {
            return Err(Error::usage(
                "PEFT adapters and LoRA files of diffusion tools cannot be merged with each other",
            )
            .hint("convert them to one format first"));
        }
        if first.form == Form::Peft && !alone {
            return Err(needs("not a whole model").hint("to get an adapter again, without a base: `--lora-out RANK`"));
        }
        Self::alone(adapters)
    }

    fn on(base: &str, reference: &str, models: &[&str], search: &[PathBuf]) -> Result<Self> {
        if let Ok(Ok(adapter)) = Adapter::find(base, search) {
            let what = format!("`{}` is an adapter, and an adapter cannot be the base", shown(base));
            let trained = adapter.config.as_ref().and_then(|config| config.base()).filter(|name| !name.is_empty());
            let named = trained.map(|name| format!("it was trained on `{}`: name that", shown(name)));
            return Err(
                Error::usage(what).hint(named.unwrap_or_else(|| "name the model that it was trained on".into()))
            );
        }
        let mut opened = Self { checkpoints: Vec::new(), layers: Vec::new(), zeros: false };
        let mut all = vec![reference];
        all.extend(models);
        for spec in unique(&all) {
            if spec == base {
                opened.push(open(base, search)?, None);
                continue;
            }
            match open_on(spec, base, search)? {
                Ok(layer) => opened.push(layer.checkpoint(spec), Some(layer)),
                Err(whole) => opened.push(whole, None),
            }
        }
        Ok(opened)
    }

    /// Adapters on zeros of all modules that any of them has.
    fn alone(adapters: Vec<(&str, Adapter)>) -> Result<Self> {
        let (mut names, mut keys) = (Vec::new(), Vec::new());
        let mut known = HashMap::new();
        for (spec, adapter) in &adapters {
            if let Some((name, _)) = adapter.whole.first() {
                let what = format!("`{}` holds whole tensors too, `{}` first", shown(spec), shown(name));
                return Err(
                    Error::input(what).hint("without the base nobody knows what they changed: add `--base PATH`")
                );
            }
            for pair in &adapter.pairs {
                known.entry(pair.key.clone()).or_insert_with(|| {
                    names.push((format!("{}.weight", pair.module), pair.shape.clone()));
                    keys.push(pair.key.clone());
                });
            }
        }
        let spelling = |adapter: &Adapter| adapter.pairs.first().map(|pair| super::file::is_kohya(&pair.module));
        let (first_spec, first) = &adapters[0];
        for (spec, other) in &adapters[1..] {
            let strange = first.form == Form::File && spelling(first) != spelling(other);
            let common = |pair: &super::Pair| first.pairs.iter().any(|own| own.key == pair.key);
            if strange && !other.pairs.iter().any(common) {
                let what = format!("`{}` and `{}` name their modules differently", shown(first_spec), shown(spec));
                return Err(Error::input(what).hint("convert one of them to the other's names first"));
            }
        }
        let mut opened = Self { checkpoints: Vec::new(), layers: Vec::new(), zeros: true };
        opened.push(zeros(&names), None);
        for (spec, adapter) in adapters {
            let layer = Layer::alone(adapter, &names, &keys)?;
            opened.push(layer.checkpoint(spec), Some(layer));
        }
        Ok(opened)
    }

    fn push(&mut self, checkpoint: Checkpoint, layer: Option<Arc<Layer>>) {
        self.checkpoints.push(checkpoint);
        self.layers.push(layer);
    }

    /// The place of the model `spec`.
    pub fn place(&self, spec: &str) -> usize {
        let first = usize::from(self.zeros);
        let found = self.checkpoints[first..].iter().position(|opened| opened.name() == spec);
        first + found.expect("every model was opened")
    }
}

/// Each name once, in order.
fn unique<'a>(specs: &[&'a str]) -> Vec<&'a str> {
    let mut known = Vec::new();
    for spec in specs {
        if !known.contains(spec) {
            known.push(*spec);
        }
    }
    known
}

/// What `inspect` shows of `spec`: a whole model, an adapter on `base`, or an adapter's own tensors.
///
/// # Errors
/// As [`open`].
pub fn shown_as(spec: &str, base: Option<&str>) -> Result<Checkpoint> {
    match (Adapter::find(spec, &[]), base) {
        (Ok(Ok(_)), Some(base)) => match open_on(spec, base, &[])? {
            Ok(layer) => Ok(layer.checkpoint(spec)),
            Err(whole) => Ok(whole),
        },
        (Ok(Ok(adapter)), None) => Ok(adapter.raw),
        (Ok(Err(whole)), _) => Ok(whole),
        (Err(_), _) => Checkpoint::open_any(spec, &[]).map(|(opened, _)| opened).or_else(|_| open(spec, &[])),
    }
}

/// Whether all of `specs` are adapters, as far as that can be told without an error.
pub fn all_adapters(specs: &[&str], search: &[PathBuf]) -> bool {
    specs.iter().all(|spec| matches!(Adapter::find(spec, search), Ok(Ok(_))))
}
