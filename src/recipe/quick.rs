//! The quick form: the same recipe from flags.

use std::fmt::Display;

use super::params::subject;
use super::{Calibrate, ModelEntry, PARAMS, Param, Params, Recipe, Sensitive, Space, Value, at, dtype_name, near};
use crate::{Error, Result};

/// The flags of the command line, which make a recipe, or change one that was read from a file. `magic merge --help` says
/// what each takes; what is left out is at its default.
///
/// ```
/// use magic_merge::Quick;
///
/// # fn main() -> magic_merge::Result<()> {
/// let quick = Quick::new("ties").base("./base").model("./a=0.7").model("./b").param("density", 0.2).calibrate("wsc");
/// let recipe = Quick { seed: Some(7), ..quick }.recipe()?;
/// assert!(recipe.to_yaml().contains("merge_method: ties"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Quick {
    /// `--base PATH`.
    pub base: Option<String>,
    /// `--model PATH[=WEIGHT]`, once per model.
    pub models: Vec<String>,
    /// `--method NAME`.
    pub method: Option<String>,
    /// `--param KEY=VALUE`.
    pub params: Vec<String>,
    /// `--calibrate SPACE`.
    pub calibrate: Option<String>,
    /// `--manifold NAME`.
    pub manifold: Option<String>,
    /// `--norm NAME`, of the weight-space calibration.
    pub norm: Option<String>,
    /// `--fit NAME`.
    pub fit: Option<String>,
    /// `--samples N`.
    pub samples: Option<usize>,
    /// `--propagate NAME`.
    pub propagate: Option<String>,
    /// `--data PATH`, once for all experts or once per expert.
    pub data: Vec<String>,
    /// `--sensitive FILE`.
    pub sensitive: Option<String>,
    /// `--dtype NAME`.
    pub dtype: Option<String>,
    /// `--seed N`.
    pub seed: Option<u64>,
    /// `--exclude GLOB`.
    pub exclude: Vec<String>,
    /// `--non-finite NAME`.
    pub non_finite: Option<String>,
    /// `--lora-out RANK`.
    pub lora_out: Option<usize>,
}

impl Quick {
    /// A merge by `method`, one of `magic methods`; `given` for [`Job::given`](crate::Job::given).
    pub fn new(method: impl Into<String>) -> Self {
        Self { method: Some(method.into()), ..Self::default() }
    }

    /// Sets the base.
    #[must_use]
    pub fn base(self, path: impl Into<String>) -> Self {
        Self { base: Some(path.into()), ..self }
    }

    /// Adds a model, as `PATH` or `PATH=WEIGHT`.
    #[must_use]
    pub fn model(mut self, path: impl Into<String>) -> Self {
        self.models.push(path.into());
        self
    }

    /// Sets a parameter of the method.
    #[must_use]
    pub fn param(mut self, key: &str, value: impl Display) -> Self {
        self.params.push(format!("{key}={value}"));
        self
    }

    /// Sets the space of the calibration: `none`, `wsc`, `fsc`, `dsc` or `auto`.
    #[must_use]
    pub fn calibrate(self, space: impl Into<String>) -> Self {
        Self { calibrate: Some(space.into()), ..self }
    }

    /// Adds calibration samples: one path for all experts, or one for each in their order.
    #[must_use]
    pub fn data(mut self, path: impl Into<String>) -> Self {
        self.data.push(path.into());
        self
    }

    /// Adds a glob of tensors that are copied from the base.
    #[must_use]
    pub fn exclude(mut self, glob: impl Into<String>) -> Self {
        self.exclude.push(glob.into());
        self
    }

    /// The recipe that the flags alone describe.
    ///
    /// # Errors
    /// No model or no method, a value that a flag does not take.
    pub fn recipe(&self) -> Result<Recipe> {
        if self.models.is_empty() {
            return Err(Error::usage("nothing to merge").hint("give a recipe file, or each model as `--model PATH`"));
        }
        if self.samples == Some(0) {
            return Err(Error::usage("`--samples` is 0").hint("it takes a whole number from 1"));
        }
        let Some(method) = &self.method else {
            return Err(Error::usage("no merge method").hint("give one, such as `--method task_arithmetic`"));
        };
        let mut recipe = Recipe {
            method: method.clone(),
            base: self.base.clone(),
            models: self.models.iter().map(|given| model(given)).collect::<Result<_>>()?,
            params: params(&self.params)?,
            ..Recipe::default()
        };
        self.change(&mut recipe)?;
        Ok(recipe)
    }

    /// Changes a recipe read from a file: the flags given replace what the file says. What is merged is for the file
    /// alone to say.
    ///
    /// # Errors
    /// A flag that says what is merged, a value that a flag does not take.
    pub fn override_recipe(&self, recipe: &mut Recipe) -> Result<()> {
        let given = [
            ("--base", self.base.is_some()),
            ("--model", !self.models.is_empty()),
            ("--method", self.method.is_some()),
            ("--param", !self.params.is_empty()),
        ];
        let given: Vec<&str> = given.iter().filter(|(_, given)| *given).map(|(flag, _)| *flag).collect();
        if !given.is_empty() {
            let message = format!("{} cannot be used with a recipe file", super::listed(given));
            return Err(Error::usage(message).hint("write it into the recipe, or leave the recipe out"));
        }
        self.change(recipe)
    }

    /// Applies the calibration flags, for callers that have no recipe at hand.
    #[doc(hidden)]
    pub fn change_calibrate(&self, calibrate: &mut Calibrate) -> Result<()> {
        set(&mut calibrate.space, "--calibrate", self.calibrate.as_deref())?;
        set(&mut calibrate.manifold, "--manifold", self.manifold.as_deref())?;
        set(&mut calibrate.norm, "--norm", self.norm.as_deref())?;
        set(&mut calibrate.fit, "--fit", self.fit.as_deref())?;
        set(&mut calibrate.propagate, "--propagate", self.propagate.as_deref())?;
        calibrate.samples = self.samples.unwrap_or(calibrate.samples);
        if !self.data.is_empty() {
            calibrate.data.clone_from(&self.data);
        }
        if let Some(file) = &self.sensitive {
            calibrate.sensitive = Sensitive::File(file.clone());
        }
        // A space in so many words may stand beside all flags, so that a script can loop over spaces.
        let idle = [
            ("--manifold", self.manifold.is_some()),
            ("--norm", self.norm.is_some()),
            ("--fit", self.fit.is_some()),
            ("--samples", self.samples.is_some()),
            ("--propagate", self.propagate.is_some()),
            ("--data", !self.data.is_empty()),
            ("--sensitive", self.sensitive.is_some()),
        ];
        match idle.iter().find(|(_, given)| *given) {
            Some((flag, _)) if calibrate.space == Space::None && self.calibrate.is_none() => {
                let message = format!("`{flag}` does nothing without calibration");
                Err(Error::usage(message).hint("add `--calibrate wsc`, or `--calibrate auto` where there are samples"))
            }
            _ => Ok(()),
        }
    }

    fn change(&self, recipe: &mut Recipe) -> Result<()> {
        self.change_calibrate(&mut recipe.calibrate)?;
        if !self.data.is_empty() {
            recipe.models.iter_mut().for_each(|entry| entry.data = None);
        }
        if let Some(dtype) = &self.dtype {
            dtype_name(dtype).map_err(|error| at("`--dtype`", &error))?;
            recipe.dtype = Some(dtype.clone());
            recipe.out_dtype = None;
        }
        if self.lora_out == Some(0) {
            return Err(Error::usage("`--lora-out` is 0").hint("it takes the largest rank of the adapter, from 1"));
        }
        set(&mut recipe.non_finite, "--non-finite", self.non_finite.as_deref())?;
        recipe.lora_out = self.lora_out.or(recipe.lora_out);
        recipe.seed = self.seed.unwrap_or(recipe.seed);
        if !self.exclude.is_empty() {
            recipe.exclude.clone_from(&self.exclude);
        }
        recipe.validate()
    }
}

fn set<T: std::str::FromStr<Err = Error>>(field: &mut T, flag: &str, given: Option<&str>) -> Result<()> {
    if let Some(word) = given {
        *field = word.parse().map_err(|error| at(&format!("`{flag}`"), &error))?;
    }
    Ok(())
}

/// `PATH` or `PATH=WEIGHT`. A path may hold `=`, so only a number after the last one is a weight.
fn model(given: &str) -> Result<ModelEntry> {
    let weighted = given.rsplit_once('=').and_then(|(path, weight)| Some((path, weight.parse::<f64>().ok()?)));
    let (path, weight) = weighted.map_or((given, None), |(path, weight)| (path, Some(weight)));
    if path.is_empty() {
        return Err(Error::usage(format!("`--model {given}` names no path")).hint("write `--model PATH=WEIGHT`"));
    }
    let mut params = Params::new();
    if let Some(weight) = weight {
        insert(&mut params, "weight", Some(path), Value::Number(weight))?;
    }
    Ok(ModelEntry { model: path.to_owned(), params, data: None })
}

fn params(given: &[String]) -> Result<Params> {
    let mut params = Params::new();
    for pair in given {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(Error::usage(format!("`--param {pair}` has no value")).hint("write `--param KEY=VALUE`"));
        };
        if params.contains_key(key) {
            return Err(Error::usage(format!("`--param {key}` is given twice")).hint(
                "a recipe gives each model its own, under its `parameters`: `--emit-recipe` prints one to begin with",
            ));
        }
        insert(&mut params, key, None, value_of(key, value)?)?;
    }
    Ok(params)
}

fn insert(params: &mut Params, key: &str, model: Option<&str>, value: Value) -> Result<()> {
    let names = || PARAMS.iter().map(|param| param.name);
    let Some(param) = Param::find(key) else {
        let hint = match near(key, names()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("known are {}", super::listed(names())),
        };
        return Err(Error::usage(format!("unknown parameter `{key}`")).hint(hint));
    };
    param.check(&subject(key, model), &value)?;
    params.insert(key.to_owned(), value);
    Ok(())
}

/// A number, `true` or `false`, a gradient `[a,b,c]` (the brackets may be left out), else a word.
fn value_of(key: &str, given: &str) -> Result<Value> {
    let bare = given.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if bare.is_some() || given.contains(',') {
        let number = |point: &str| {
            let refuse = |_| Error::usage(format!("`{key}` holds `{point}` among numbers"));
            point.trim().parse::<f64>().map_err(refuse)
        };
        return bare.unwrap_or(given).split(',').map(number).collect::<Result<_>>().map(Value::Gradient);
    }
    Ok(match given.parse() {
        Ok(yes) => Value::Bool(yes),
        Err(_) => given.parse().map_or_else(|_| Value::Text(given.to_owned()), Value::Number),
    })
}
