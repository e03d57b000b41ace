//! A recipe from YAML. No key is passed over in silence: a key that is ignored is a merge that is wrong.

use std::fmt::Display;
use std::str::FromStr;

use super::keys::{CALIBRATE, FEATURE, FILTER, MODEL, TOP, unknown};
use super::params::subject;
use super::tree::{self, Kind, Node};
use super::{Calibrate, ModelEntry, NonFinite, PARAMS, Param, Params, Recipe, Sensitive, Value, at, dtype_name};
use crate::{Error, Result};

/// See [`Recipe::from_yaml`].
pub(super) fn read(text: &str, name: &str) -> Result<Recipe> {
    let reader = Reader { name };
    let recipe = reader.recipe(&tree::parse(text, name)?)?;
    recipe.validate().map_err(|error| at(&format!("`{name}`"), &error))?;
    Ok(recipe)
}

struct Reader<'a> {
    name: &'a str,
}

/// A mapping whose keys are all known.
struct Fields<'n>(&'n [(tree::Key, Node)]);

impl<'n> Fields<'n> {
    /// The value of a key. An empty one is as good as none, as in mergekit.
    fn get(&self, key: &str) -> Option<&'n Node> {
        let given = self.0.iter().find(|(k, _)| k.text == key);
        given.map(|(_, node)| node).filter(|node| !matches!(node.kind, Kind::Null))
    }
}

impl Reader<'_> {
    fn recipe(&self, root: &Node) -> Result<Recipe> {
        if matches!(root.kind, Kind::Null) {
            return Err(
                Error::usage(format!("`{}` is empty", self.name)).hint("a recipe needs `merge_method` and `models`")
            );
        }
        let top = self.fields(root, "the recipe", "at the top level", TOP)?;
        let need = |key: &str| {
            let missing = || Error::usage(format!("`{}` has no `{key}`", self.name));
            top.get(key).ok_or_else(missing)
        };
        let method = self.text(need("merge_method")?, "`merge_method`")?;
        let models = need("models")?;
        let dtype = |key: &str| {
            let read = |node| {
                let text = self.text(node, &format!("`{key}`"))?;
                dtype_name(&text).map_err(|error| self.place(node.line, &error))?;
                Ok(text)
            };
            top.get(key).map(read).transpose()
        };
        Ok(Recipe {
            method,
            base: top.get("base_model").map(|node| self.model_path(node, "`base_model`")).transpose()?,
            models: self.models(models)?,
            params: top.get("parameters").map_or(Ok(Params::new()), |node| self.params(node, None))?,
            dtype: dtype("dtype")?,
            out_dtype: dtype("out_dtype")?,
            calibrate: top.get("calibrate").map_or_else(|| Ok(Calibrate::default()), |node| self.calibrate(node))?,
            seed: top.get("seed").map_or(Ok(0), |node| self.whole(node, "`seed`"))?,
            exclude: top.get("exclude").map_or(Ok(Vec::new()), |node| self.texts(node, "`exclude`"))?,
            non_finite: top.get("non_finite").map_or(Ok(NonFinite::Error), |node| self.word(node, "`non_finite`"))?,
            lora_out: top.get("lora_out").map(|node| self.rank(node)).transpose()?,
        })
    }

    fn rank(&self, node: &Node) -> Result<usize> {
        let what = match node.kind {
            Kind::Int(0) => "`lora_out` is 0",
            Kind::Int(rank) => return Ok(usize::try_from(rank).unwrap_or(usize::MAX)),
            _ => "`lora_out` is not a whole number",
        };
        Err(self.error(node.line, what).hint("it takes the largest rank of the adapter, a whole number from 1"))
    }

    fn models(&self, node: &Node) -> Result<Vec<ModelEntry>> {
        let Kind::List(entries) = &node.kind else {
            let error = self.error(node.line, format!("`models` is {}, not a list", node.kind.sort()));
            return Err(error.hint("each model is an entry `- model: PATH`"));
        };
        if entries.is_empty() {
            return Err(self.error(node.line, "`models` is an empty list"));
        }
        entries.iter().enumerate().map(|(i, entry)| self.model(i, entry)).collect()
    }

    fn model(&self, index: usize, node: &Node) -> Result<ModelEntry> {
        let number = format!("model {} of `models`", index + 1);
        if let Kind::Text(path) = &node.kind {
            let error = self.error(node.line, format!("{number} is text, not a mapping"));
            return Err(error.hint(format!("write `- model: {path}`")));
        }
        // The message about an unknown key is clearer with the model's path, where it has one.
        let known = match &node.kind {
            Kind::Map(pairs) => pairs.iter().find_map(|(key, value)| match &value.kind {
                Kind::Text(path) if key.text == "model" => Some(format!("beside model `{path}`")),
                _ => None,
            }),
            _ => None,
        };
        let place = known.unwrap_or_else(|| format!("in {number}"));
        let fields = self.fields(node, &number, &place, MODEL)?;
        let path = fields.get("model").ok_or_else(|| self.error(node.line, format!("{number} has no `model`")))?;
        let model = self.model_path(path, "`model`")?;
        Ok(ModelEntry {
            params: fields.get("parameters").map_or(Ok(Params::new()), |node| self.params(node, Some(&model)))?,
            data: fields.get("data").map(|node| self.text(node, &format!("`data` of `{model}`"))).transpose()?,
            model,
        })
    }

    /// A model's path; `a+b` is model `a` with the LoRA adapter `b`, as in mergekit, where nothing lies at that path.
    fn model_path(&self, node: &Node, what: &str) -> Result<String> {
        if matches!(node.kind, Kind::Map(_)) {
            let error =
                self.error(node.line, format!("{what} is a mapping, a form of mergekit that magic does not have"));
            return Err(error.hint("give the model's path as text"));
        }
        self.text(node, what)
    }

    fn calibrate(&self, node: &Node) -> Result<Calibrate> {
        let fields = self.fields(node, "`calibrate`", "in `calibrate`", CALIBRATE)?;
        let space = fields.get("space").ok_or_else(|| {
            self.error(node.line, "`calibrate` has no `space`").hint("`space: dsc` calibrates weights, then features")
        })?;
        let default = Calibrate::default();
        let feature = match fields.get("feature") {
            Some(node) => self.fields(node, "`calibrate.feature`", "in `calibrate.feature`", FEATURE)?,
            None => Fields(&[]),
        };
        let samples = match feature.get("samples") {
            None => default.samples,
            Some(node) => match usize::try_from(self.whole(node, "`samples`")?) {
                Ok(count) if count > 0 => count,
                _ => return Err(self.error(node.line, "`samples` is 0").hint("it takes a whole number from 1")),
            },
        };
        Ok(Calibrate {
            space: self.word(space, "`space`")?,
            manifold: fields.get("manifold").map_or(Ok(default.manifold), |node| self.word(node, "`manifold`"))?,
            norm: fields.get("norm").map_or(Ok(default.norm), |node| self.word(node, "`norm`"))?,
            fit: feature.get("fit").map_or(Ok(default.fit), |node| self.word(node, "`fit`"))?,
            propagate: feature.get("propagate").map_or(Ok(default.propagate), |node| self.word(node, "`propagate`"))?,
            feature_norm: feature.get("norm").map_or(Ok(default.feature_norm), |node| self.word(node, "`norm`"))?,
            samples,
            data: fields.get("data").map_or(Ok(Vec::new()), |node| self.texts(node, "`data`"))?,
            sensitive: match fields.get("sensitive") {
                None => Sensitive::None,
                Some(node) if matches!(node.kind, Kind::List(_)) => Sensitive::Names(self.texts(node, "`sensitive`")?),
                Some(node) => Sensitive::File(self.text(node, "`sensitive`")?),
            },
            exclude: fields.get("exclude").map_or(Ok(Vec::new()), |node| self.texts(node, "`exclude`"))?,
        })
    }

    fn params(&self, node: &Node, model: Option<&str>) -> Result<Params> {
        let place = match model {
            Some(model) => format!("under `parameters` of `{model}`"),
            None => "under `parameters`".to_owned(),
        };
        let Kind::Map(pairs) = &node.kind else {
            return Err(self.error(node.line, format!("`parameters` is {}, not a mapping", node.kind.sort())));
        };
        let mut params = Params::new();
        for (key, node) in pairs {
            let Some(param) = Param::find(&key.text) else {
                let known = PARAMS.iter().map(|param| param.name);
                return Err(self.place(key.line, &unknown(&key.text, &place, known)));
            };
            if model.is_some() && !param.per_model {
                let error = self.error(key.line, format!("`{}` has no meaning beside one model", key.text));
                return Err(error.hint("put it under the recipe's own `parameters`"));
            }
            let subject = subject(&key.text, model);
            let value = self.value(node, &subject, true)?;
            param.check(&subject, &value).map_err(|error| self.place(node.line, &error))?;
            params.insert(key.text.clone(), value);
        }
        Ok(params)
    }

    /// A parameter's value; `filters` says whether a list of filters may stand here.
    fn value(&self, node: &Node, subject: &str, filters: bool) -> Result<Value> {
        match &node.kind {
            Kind::Bool(yes) => Ok(Value::Bool(*yes)),
            Kind::Int(_) | Kind::Float(_) => Ok(Value::Number(self.number(node, subject)?)),
            // YAML 1.1, which mergekit reads, has more words for these two; no parameter takes them as text.
            Kind::Text(word) => Ok(match word.to_ascii_lowercase().as_str() {
                "yes" | "on" => Value::Bool(true),
                "no" | "off" => Value::Bool(false),
                _ => Value::Text(word.clone()),
            }),
            Kind::Null => Err(self.error(node.line, format!("{subject} has no value"))),
            Kind::List(items) if items.is_empty() => Err(self.error(node.line, format!("{subject} is an empty list"))),
            Kind::List(items) if items.iter().any(|item| matches!(item.kind, Kind::Map(_))) => {
                if !filters {
                    return Err(self.error(node.line, format!("a filter of {subject} holds filters of its own")));
                }
                items.iter().map(|item| self.filter(item, subject)).collect::<Result<_>>().map(Value::Filters)
            }
            Kind::List(items) => {
                items.iter().map(|item| self.number(item, subject)).collect::<Result<_>>().map(Value::Gradient)
            }
            // mergekit refuses one filter without its list, and says nothing useful.
            Kind::Map(_) if filters => Ok(Value::Filters(vec![self.filter(node, subject)?])),
            Kind::Map(_) => Err(self.error(node.line, format!("a filter of {subject} holds filters of its own"))),
        }
    }

    fn filter(&self, node: &Node, subject: &str) -> Result<(Option<String>, Value)> {
        let what = format!("a filter of {subject}");
        let fields = self.fields(node, &what, &format!("in {what}"), FILTER)?;
        let value = fields.get("value").ok_or_else(|| self.error(node.line, format!("{what} has no `value`")))?;
        let filter = fields.get("filter").map(|node| self.text(node, &format!("`filter` of {subject}"))).transpose()?;
        Ok((filter, self.value(value, subject, false)?))
    }

    fn number(&self, node: &Node, subject: &str) -> Result<f64> {
        match node.kind {
            Kind::Int(x) => Ok(x as f64),
            Kind::Float(x) if x.is_finite() => Ok(x),
            Kind::Float(_) => Err(self.error(node.line, format!("{subject} is not a finite number"))),
            Kind::Bool(yes) => Ok(f64::from(u8::from(yes))),
            _ => Err(self.error(node.line, format!("{subject} holds {} among numbers", node.kind.sort()))),
        }
    }

    fn text(&self, node: &Node, what: &str) -> Result<String> {
        match &node.kind {
            Kind::Text(text) if text.is_empty() => Err(self.error(node.line, format!("{what} is empty"))),
            Kind::Text(text) => Ok(text.clone()),
            Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) => {
                let error = self.error(node.line, format!("{what} is {}, not text", node.kind.sort()));
                Err(error.hint("put it in quotes if it is a name"))
            }
            kind => Err(self.error(node.line, format!("{what} is {}, not text", kind.sort()))),
        }
    }

    /// One text, or a list of them.
    fn texts(&self, node: &Node, what: &str) -> Result<Vec<String>> {
        match &node.kind {
            Kind::List(items) => items.iter().map(|item| self.text(item, &format!("an entry of {what}"))).collect(),
            _ => Ok(vec![self.text(node, what)?]),
        }
    }

    fn word<T: FromStr<Err = Error>>(&self, node: &Node, what: &str) -> Result<T> {
        self.text(node, what)?.parse().map_err(|error| self.place(node.line, &error))
    }

    fn whole(&self, node: &Node, what: &str) -> Result<u64> {
        match node.kind {
            Kind::Int(x) => Ok(x),
            _ => {
                let error = self.error(node.line, format!("{what} is not a whole number"));
                Err(error.hint(format!("it takes a whole number from 0 to {}", u64::MAX)))
            }
        }
    }

    /// The mapping `what`, refused if a key is not among `known`.
    fn fields<'n>(&self, node: &'n Node, what: &str, place: &str, known: &[&str]) -> Result<Fields<'n>> {
        let Kind::Map(pairs) = &node.kind else {
            return Err(self.error(node.line, format!("{what} is {}, not a mapping", node.kind.sort())));
        };
        match pairs.iter().find(|(key, _)| !known.contains(&key.text.as_str())) {
            Some((key, _)) => Err(self.place(key.line, &unknown(&key.text, place, known.iter().copied()))),
            None => Ok(Fields(pairs)),
        }
    }

    fn error(&self, line: u64, message: impl Display) -> Error {
        self.place(line, &Error::usage(message.to_string()))
    }

    fn place(&self, line: u64, error: &Error) -> Error {
        match line {
            0 => at(&format!("`{}`", self.name), error),
            _ => at(&format!("`{}:{line}`", self.name), error),
        }
    }
}
