//! Merge parameters: which there are, what they may hold, and what one of them is for one tensor.

use std::collections::BTreeMap;

use super::emit::number;
use super::{Recipe, listed};
use crate::{Error, Result};

/// Parameters by name.
pub type Params = BTreeMap<String, Value>;

/// A parameter's value as written.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// One number for every tensor.
    Number(f64),
    /// True or false; 1 or 0 where a number is asked for.
    Bool(bool),
    /// A word.
    Text(String),
    /// Numbers spread evenly over the depth of the network, with straight lines between them.
    Gradient(Vec<f64>),
    /// The value of the first filter that is part of the tensor's name. No filter, or `*`, is part of every name.
    Filters(Vec<(Option<String>, Value)>),
}

/// A parameter that some merge method knows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Param {
    /// Its name, as in mergekit.
    pub name: &'static str,
    /// What it may hold.
    pub takes: Takes,
    /// Whether a model may have its own. Such a parameter under the recipe's own `parameters` is the default of all
    /// models; any other has no meaning beside a model, where mergekit would ignore it.
    pub per_model: bool,
}

/// What a parameter may hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Takes {
    /// A finite number from the first bound to the second, or a gradient of them.
    Number(f64, f64),
    /// A whole number from 1.
    Count,
    /// True or false.
    Flag,
    /// True, false, or one of these words.
    FlagOr(&'static [&'static str]),
}

// The arithmetic is f32, where anything larger would be infinite.
const LARGEST: f64 = f32::MAX as f64;
const ANY: Takes = Takes::Number(-LARGEST, LARGEST);
const POSITIVE: Takes = Takes::Number(0.0, LARGEST);
const FRACTION: Takes = Takes::Number(0.0, 1.0);

/// Every parameter of every method. Whether the method in hand uses it is for the method to say; see [`Recipe::given`].
pub const PARAMS: &[Param] = &[
    Param { name: "weight", takes: ANY, per_model: true },
    Param { name: "density", takes: FRACTION, per_model: true },
    Param { name: "epsilon", takes: FRACTION, per_model: true },
    Param { name: "gamma", takes: FRACTION, per_model: true },
    Param { name: "scale", takes: ANY, per_model: true },
    Param { name: "normalize", takes: Takes::Flag, per_model: false },
    Param { name: "lambda", takes: ANY, per_model: false },
    Param { name: "rescale", takes: Takes::FlagOr(&["l1", "inverse_density"]), per_model: false },
    // Read for mergekit's sake and never used: it only shrinks a temporary there, and changes no result.
    Param { name: "int8_mask", takes: Takes::Flag, per_model: true },
    Param { name: "t", takes: ANY, per_model: false },
    Param { name: "select_topk", takes: FRACTION, per_model: false },
    Param { name: "filter_wise", takes: Takes::Flag, per_model: false },
    Param { name: "nuslerp_flatten", takes: Takes::Flag, per_model: false },
    Param { name: "nuslerp_row_wise", takes: Takes::Flag, per_model: false },
    Param { name: "normalize_weights", takes: Takes::Flag, per_model: false },
    Param { name: "max_iter", takes: Takes::Count, per_model: false },
    Param { name: "tol", takes: POSITIVE, per_model: false },
    Param { name: "eps", takes: POSITIVE, per_model: false },
    Param { name: "mask_lambda", takes: POSITIVE, per_model: false },
    Param { name: "votes", takes: Takes::Count, per_model: false },
    Param { name: "common_fraction", takes: FRACTION, per_model: false },
    Param { name: "embeddings", takes: Takes::Flag, per_model: false },
];

impl Param {
    /// The parameter of that name.
    pub fn find(name: &str) -> Option<&'static Self> {
        PARAMS.iter().find(|param| param.name == name)
    }

    /// Whether the parameter may hold `value`. `subject` names it in the message: `` `weight` of `./a` ``.
    pub(super) fn check(&self, subject: &str, value: &Value) -> Result<()> {
        let refuse = |what: &str, hint: String| Err(Error::usage(format!("{subject} {what}")).hint(hint));
        match (self.takes, value) {
            (_, Value::Filters(filters)) => filters.iter().try_for_each(|(_, value)| self.check(subject, value)),
            (Takes::Number(..) | Takes::Flag | Takes::FlagOr(_), Value::Bool(_)) => Ok(()),
            (Takes::Number(low, high), Value::Number(x)) => in_range(subject, *x, low, high),
            (Takes::Number(low, high), Value::Gradient(points)) => {
                points.iter().try_for_each(|x| in_range(subject, *x, low, high))
            }
            (Takes::Number(..), Value::Text(_)) => {
                refuse("is text", "it takes a number, written without quotes".to_owned())
            }
            (Takes::Count, Value::Number(x)) if x.fract() == 0.0 && (1.0..=1e9).contains(x) => Ok(()),
            (Takes::Count, Value::Number(x)) => refuse(&format!("is {x}"), "it takes a whole number from 1".to_owned()),
            (Takes::Count, _) => refuse(&format!("is {}", value.sort()), "it takes a whole number from 1".to_owned()),
            // mergekit stores booleans as numbers, so `1` and `0` are seen in the wild.
            (Takes::Flag | Takes::FlagOr(_), Value::Number(x)) if *x == 0.0 || *x == 1.0 => Ok(()),
            (Takes::FlagOr(words), Value::Text(word)) if words.contains(&word.as_str()) => Ok(()),
            (Takes::Flag, _) => refuse(&format!("is {}", value.sort()), "it takes `true` or `false`".to_owned()),
            (Takes::FlagOr(words), Value::Text(word)) => {
                refuse(&format!("is `{word}`"), format!("it takes `true`, `false`, {}", listed(words.iter().copied())))
            }
            (Takes::FlagOr(words), _) => {
                let hint = format!("it takes `true`, `false`, {}", listed(words.iter().copied()));
                refuse(&format!("is {}", value.sort()), hint)
            }
        }
    }
}

/// What a number may be.
fn range(low: f64, high: f64) -> String {
    match (low > -LARGEST, high < LARGEST) {
        (true, true) => format!("it takes a number from {} to {}", number(low), number(high)),
        (true, false) => format!("it takes a number from {} on", number(low)),
        (false, _) => "it takes a number".into(),
    }
}

fn in_range(subject: &str, x: f64, low: f64, high: f64) -> Result<()> {
    if !x.is_finite() {
        Err(Error::usage(format!("{subject} is not a finite number")).hint(range(low, high)))
    } else if x < low {
        Err(Error::usage(format!("{subject} is {}, below {}", number(x), number(low))).hint(range(low, high)))
    } else if x > high {
        Err(Error::usage(format!("{subject} is {}, above {}", number(x), number(high))).hint(range(low, high)))
    } else {
        Ok(())
    }
}

impl Value {
    /// What sort of value it is, for messages.
    fn sort(&self) -> &'static str {
        match self {
            Self::Number(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::Text(_) => "text",
            Self::Gradient(_) => "a gradient",
            Self::Filters(_) => "a list of filters",
        }
    }

    /// The value for one tensor, if a filter matches it. Filters are plain, case-sensitive substrings, as in mergekit.
    fn of(&self, tensor: &str) -> Option<&Self> {
        let Self::Filters(filters) = self else { return Some(self) };
        let matches = |filter: &Option<String>| filter.as_deref().is_none_or(|f| f == "*" || tensor.contains(f));
        filters.iter().find(|(filter, _)| matches(filter)).and_then(|(_, value)| value.of(tensor))
    }
}

/// A gradient at position `t`: `points` at equal distances over 0..=1, with straight lines between them.
fn interpolate(points: &[f64], t: f64) -> f64 {
    let last = points.len() - 1;
    let s = t.clamp(0.0, 1.0) * last as f64;
    let i = s.floor() as usize;
    let f = s - i as f64;
    (1.0 - f) * points[i] + f * points[(i + 1).min(last)]
}

impl Recipe {
    /// The number that parameter `key` is for tensor `tensor` of model `model` (`None`: of no model in particular) at
    /// position `t` along the depth ([`Depth`](super::Depth)). The model's own parameters come before the recipe's; a
    /// filter list that matches nothing leaves the question to the next of them.
    pub fn number(&self, key: &str, model: Option<usize>, tensor: &str, t: f64) -> Result<Option<f64>> {
        let Some((value, owner)) = self.value(key, model, tensor) else { return Ok(None) };
        match value {
            Value::Number(x) => Ok(Some(*x)),
            Value::Bool(yes) => Ok(Some(f64::from(u8::from(*yes)))),
            Value::Gradient(points) if !points.is_empty() => Ok(Some(interpolate(points, t))),
            _ => Err(Error::usage(format!("{} is {}, not a number", subject(key, owner), value.sort()))),
        }
    }

    /// The same for a parameter that is true or false. Numbers count as true unless they are 0.
    pub fn flag(&self, key: &str, model: Option<usize>, tensor: &str) -> Result<Option<bool>> {
        let Some((value, owner)) = self.value(key, model, tensor) else { return Ok(None) };
        match value {
            Value::Bool(yes) => Ok(Some(*yes)),
            Value::Number(x) => Ok(Some(*x != 0.0)),
            _ => Err(Error::usage(format!("{} is {}, not true or false", subject(key, owner), value.sort()))),
        }
    }

    /// The same for a parameter that may be a word. `true` and `false` are words here, and so are the numbers 1 and 0
    /// in their place.
    pub fn text(&self, key: &str, model: Option<usize>, tensor: &str) -> Result<Option<String>> {
        let Some((value, owner)) = self.value(key, model, tensor) else { return Ok(None) };
        match value {
            Value::Text(word) => Ok(Some(word.clone())),
            Value::Bool(yes) => Ok(Some(yes.to_string())),
            Value::Number(x) if *x == 0.0 || *x == 1.0 => Ok(Some((*x == 1.0).to_string())),
            _ => Err(Error::usage(format!("{} is {}, not a word", subject(key, owner), value.sort()))),
        }
    }

    /// Every parameter that the recipe gives, with the model it stands beside: a method checks that it knows them.
    /// `int8_mask` is not among them; no method minds it.
    pub fn given(&self) -> impl Iterator<Item = (&str, Option<usize>)> {
        let own = self.params.keys().map(|key| (key.as_str(), None));
        let models = self.models.iter().enumerate();
        let models = models.flat_map(|(i, entry)| entry.params.keys().map(move |key| (key.as_str(), Some(i))));
        own.chain(models).filter(|(key, _)| *key != "int8_mask")
    }

    /// The value that holds for a tensor, and the model it stands beside.
    fn value(&self, key: &str, model: Option<usize>, tensor: &str) -> Option<(&Value, Option<&str>)> {
        let entry = model.and_then(|i| self.models.get(i));
        let own = entry.and_then(|e| Some((e.params.get(key)?.of(tensor)?, Some(e.model.as_str()))));
        own.or_else(|| Some((self.params.get(key)?.of(tensor)?, None)))
    }
}

/// How a message names a parameter.
pub(super) fn subject(key: &str, model: Option<&str>) -> String {
    match model {
        Some(model) => format!("`{key}` of `{model}`"),
        None => format!("`{key}`"),
    }
}
