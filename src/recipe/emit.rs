//! A recipe as YAML, for people and for mergekit. Written by hand: the keys are few, and their order, the plain style of
//! paths and the spelling of numbers (mergekit's parser is YAML 1.1) all matter.

use std::fmt::Write;

use super::{Calibrate, NonFinite, Params, Recipe, Sensitive, Value};

/// See [`Recipe::to_yaml`].
pub(super) fn write(recipe: &Recipe) -> String {
    let mut out = Out(String::new());
    out.line(0, "merge_method", &text(&recipe.method));
    out.option(0, "base_model", recipe.base.as_deref());
    out.0.push_str("models:\n");
    for entry in &recipe.models {
        out.line(2, "- model", &text(&entry.model));
        out.option(4, "data", entry.data.as_deref());
        out.params(4, &entry.params);
    }
    out.params(0, &recipe.params);
    out.option(0, "dtype", recipe.dtype.as_deref());
    out.option(0, "out_dtype", recipe.out_dtype.as_deref());
    if recipe.calibrate != Calibrate::default() {
        out.calibrate(&recipe.calibrate);
    }
    if recipe.seed != 0 {
        out.line(0, "seed", &recipe.seed.to_string());
    }
    if !recipe.exclude.is_empty() {
        out.texts(0, "exclude", &recipe.exclude);
    }
    if recipe.non_finite != NonFinite::Error {
        out.line(0, "non_finite", recipe.non_finite.as_str());
    }
    if let Some(rank) = recipe.lora_out {
        out.line(0, "lora_out", &rank.to_string());
    }
    out.0
}

struct Out(String);

impl Out {
    fn line(&mut self, indent: usize, key: &str, value: &str) {
        let gap = if value.is_empty() { "" } else { " " };
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{:indent$}{key}:{gap}{value}", "");
    }

    fn option(&mut self, indent: usize, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.line(indent, key, &text(value));
        }
    }

    fn texts(&mut self, indent: usize, key: &str, values: &[String]) {
        let values: Vec<String> = values.iter().map(|value| text(value)).collect();
        self.line(indent, key, &format!("[{}]", values.join(", ")));
    }

    fn params(&mut self, indent: usize, params: &Params) {
        if params.is_empty() {
            return;
        }
        self.line(indent, "parameters", "");
        for (key, value) in params {
            let Value::Filters(filters) = value else {
                self.line(indent + 2, key, &scalar(value));
                continue;
            };
            self.line(indent + 2, key, "");
            for (filter, value) in filters {
                match filter {
                    Some(filter) => {
                        self.line(indent + 4, "- filter", &text(filter));
                        self.line(indent + 6, "value", &scalar(value));
                    }
                    None => self.line(indent + 4, "- value", &scalar(value)),
                }
            }
        }
    }

    fn calibrate(&mut self, calibrate: &Calibrate) {
        let default = Calibrate::default();
        self.line(0, "calibrate", "");
        self.line(2, "space", calibrate.space.as_str());
        if calibrate.manifold != default.manifold {
            self.line(2, "manifold", calibrate.manifold.as_str());
        }
        if calibrate.norm != default.norm {
            self.line(2, "norm", calibrate.norm.as_str());
        }
        let mut feature = Vec::new();
        if calibrate.fit != default.fit {
            feature.push(format!("fit: {}", calibrate.fit));
        }
        if calibrate.feature_norm != default.feature_norm {
            feature.push(format!("norm: {}", calibrate.feature_norm));
        }
        if calibrate.samples != default.samples {
            feature.push(format!("samples: {}", calibrate.samples));
        }
        if calibrate.propagate != default.propagate {
            feature.push(format!("propagate: {}", calibrate.propagate));
        }
        if !feature.is_empty() {
            self.line(2, "feature", &format!("{{{}}}", feature.join(", ")));
        }
        match calibrate.data.as_slice() {
            [] => {}
            [one] => self.line(2, "data", &text(one)),
            each => self.texts(2, "data", each),
        }
        match &calibrate.sensitive {
            Sensitive::None => {}
            Sensitive::File(path) => self.line(2, "sensitive", &text(path)),
            Sensitive::Names(names) => self.texts(2, "sensitive", names),
        }
        if !calibrate.exclude.is_empty() {
            self.texts(2, "exclude", &calibrate.exclude);
        }
    }
}

/// Everything but a list of filters, which has lines of its own.
fn scalar(value: &Value) -> String {
    match value {
        Value::Number(x) => number(*x),
        Value::Bool(yes) => yes.to_string(),
        Value::Text(word) => text(word),
        Value::Gradient(points) => format!("[{}]", points.iter().map(|x| number(*x)).collect::<Vec<_>>().join(", ")),
        // No reader makes filters inside filters.
        Value::Filters(_) => "[]".to_owned(),
    }
}

/// The shortest spelling that reads back as the same number. YAML 1.1 takes an exponent for one only after a point and
/// with a sign.
pub(super) fn number(x: f64) -> String {
    if x.fract() == 0.0 && x.abs() < 1e15 && !(x == 0.0 && x.is_sign_negative()) {
        return format!("{x:.0}");
    }
    let plain = format!("{x:?}");
    let Some((digits, exponent)) = plain.split_once('e') else { return plain };
    let point = if digits.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with('-') { "" } else { "+" };
    format!("{digits}{point}e{sign}{exponent}")
}

/// A string: bare if it looks like a name or a path and like nothing else, else in double quotes.
fn text(s: &str) -> String {
    const WORDS: [&str; 12] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf", "infinity"];
    let starts =
        s.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/') || s.starts_with("./") || s.starts_with("../");
    let bare = s.bytes().all(|b| b.is_ascii_alphanumeric() || b"./_-".contains(&b));
    if starts && bare && !WORDS.contains(&s.to_ascii_lowercase().as_str()) {
        return s.to_owned();
    }
    let mut quoted = String::from('"');
    for c in s.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            ' '..='~'
            | '\u{a0}'..='\u{2027}'
            | '\u{202a}'..='\u{d7ff}'
            | '\u{e000}'..='\u{fefe}'
            | '\u{ff00}'..='\u{fffd}'
            | '\u{10000}'.. => {
                quoted.push(c);
            }
            // What YAML does not print, and what its readers fold.
            _ => {
                let _ = write!(quoted, "\\U{:08x}", u32::from(c));
            }
        }
    }
    quoted.push('"');
    quoted
}
