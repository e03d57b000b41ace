//! `config.json`, key by key, with errors that name the key.

use serde_json::{Map, Value};

use crate::checkpoint::text::shown;
use crate::error::{Error, Result};

/// The configuration of one model.
pub struct Config<'a> {
    model: &'a str,
    file: &'a str,
    value: &'a Value,
}

impl<'a> Config<'a> {
    /// The object `value` of the model called `model`.
    pub fn new(model: &'a str, value: &'a Value) -> Self {
        Self::of("config.json", model, value)
    }

    /// The object `value` of the file `file` of the model called `model`.
    pub fn of(file: &'a str, model: &'a str, value: &'a Value) -> Self {
        Self { model, file, value }
    }

    /// The same place with another object.
    pub fn with<'b>(&'b self, value: &'b Value) -> Config<'b> {
        Config { model: self.model, file: self.file, value }
    }

    /// All keys, those that are not there from `defaults`.
    pub fn over(&self, defaults: &Value) -> Value {
        let objects = [defaults, self.value].into_iter().filter_map(Value::as_object);
        Value::Object(objects.flatten().map(|(key, value)| (key.clone(), value.clone())).collect::<Map<_, _>>())
    }

    /// The object under `key`, or this one where there is none.
    pub fn inner(&self, key: &str) -> Config<'a> {
        let value = self.value.get(key).filter(|value| value.is_object()).unwrap_or(self.value);
        Config { value, ..*self }
    }

    /// True if the key is there, be it null.
    pub fn has(&self, key: &str) -> bool {
        self.value.get(key).is_some()
    }

    /// The value under `key`, if it is there and not null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    /// A positive whole number.
    pub fn size(&self, key: &str) -> Result<u32> {
        self.maybe_size(key)?.ok_or_else(|| self.bad(key, "is missing"))
    }

    /// A positive whole number, if the key is there.
    pub fn maybe_size(&self, key: &str) -> Result<Option<u32>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let size = value.as_u64().and_then(|size| u32::try_from(size).ok()).filter(|size| (1..1 << 28).contains(size));
        size.map(Some).ok_or_else(|| self.bad(key, &format!("is {value}, not a size")))
    }

    /// A finite number, `default` where the key is not there.
    pub fn number(&self, key: &str, default: f64) -> Result<f64> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let number = value.as_f64().filter(|x| x.is_finite());
        number.ok_or_else(|| self.bad(key, &format!("is {value}, not a number")))
    }

    /// What a normalisation adds to a variance: a finite float32 that is not negative, `default` where the key is not
    /// there.
    pub fn eps(&self, key: &str, default: f64) -> Result<f32> {
        let eps = self.number(key, default)? as f32;
        match eps.is_finite() && eps >= 0.0 {
            true => Ok(eps),
            false => Err(self.bad(key, &format!("is {eps}, and should be small and not negative"))),
        }
    }

    /// True if the key is there and true.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A word, if the key is there.
    pub fn word(&self, key: &str) -> Option<&'a str> {
        self.get(key).and_then(Value::as_str)
    }

    /// An error about `key`.
    pub fn bad(&self, key: &str, what: &str) -> Error {
        Error::input(format!("`{}` of `{}`: `{key}` {}", self.file, shown(self.model), shown(what)))
            .hint("weight-space calibration needs no configuration: `--calibrate wsc`")
    }
}
