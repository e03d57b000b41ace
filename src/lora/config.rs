//! `adapter_config.json` of PEFT: what of it changes task vectors, and what is refused.

use fancy_regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::checkpoint::text::{list, shown};
use crate::error::{Error, Result};

/// Most patterns of one kind.
const MOST: usize = 1 << 12;
/// Most of them that are more than a name: each is a small program.
const MOST_REGEXES: usize = 256;
/// Largest of these programs, in bytes.
const REGEX_SIZE: usize = 1 << 18;
/// Most steps back of one, for one name.
const REGEX_STEPS: usize = 20_000;

/// What a configuration says of ranks and scales.
#[derive(Debug)]
pub struct Config {
    /// The whole of it.
    pub document: Value,
    /// Whether weights are stored as `[in, out]` where their shape leaves it open.
    pub fan_in_fan_out: bool,
    name: String,
    rank: u64,
    alpha: f64,
    /// α/√r for α/r (rsLoRA, arXiv 2312.03732).
    rslora: bool,
    ranks: Vec<(Pattern, u64)>,
    alphas: Vec<(Pattern, f64)>,
}

/// Keys that must be absent, null, false or empty; with the words for what they are.
const REFUSED: [(&str, &str); 11] = [
    ("use_dora", "DoRA, which rescales whole columns"),
    ("layer_replication", "layers that the base does not have (`layer_replication`)"),
    ("lora_bias", "biases of its own (`lora_bias`)"),
    ("target_parameters", "parameters that are no modules (`target_parameters`)"),
    ("trainable_token_indices", "single trained tokens (`trainable_token_indices`)"),
    ("use_qalora", "QA-LoRA"),
    ("use_bdlora", "block-diagonal factors (`use_bdlora`)"),
    ("alora_invocation_tokens", "activated LoRA, which acts on some tokens only"),
    ("arrow_config", "a router of adapters (`arrow_config`)"),
    ("kasa_config", "KaSA"),
    ("monteclora_config", "MonteCLoRA"),
];

/// Initialisations that change the base.
const INITS: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

impl Config {
    /// Reads the configuration of the adapter `name`.
    ///
    /// # Errors
    /// Another kind of adapter, a value of the wrong sort, α or rank of zero, a pattern that is no regular expression.
    pub fn new(document: Value, name: &str) -> Result<Self> {
        let at = shown(name);
        let bad = |what: String| Error::input(format!("`adapter_config.json` of `{at}`: {what}"));
        let whole = "merge it into its base with PEFT (`merge_and_unload`), and name the result as a model";
        let kind = document.get("peft_type").and_then(Value::as_str).unwrap_or("nothing");
        if kind != "LORA" {
            let what = format!("`{at}` is an adapter of type {}, and only LORA can be read", shown(kind));
            return Err(Error::input(what).hint(whole));
        }
        for (key, words) in REFUSED {
            let idle = match document.get(key) {
                None | Some(Value::Null | Value::Bool(false)) => true,
                Some(Value::Array(list)) => list.is_empty(),
                Some(Value::Object(map)) => map.is_empty(),
                Some(_) => false,
            };
            if !idle {
                return Err(Error::input(format!("`{at}` has {words}, which no B·A expresses")).hint(whole));
            }
        }
        if let Some(Value::String(init)) = document.get("init_lora_weights")
            && INITS.iter().any(|known| init.starts_with(known))
        {
            let what = format!("`{at}` was initialised by {}, which changed its base", shown(init));
            let convert =
                "save it again as plain LoRA: `path_initial_model_for_weight_conversion` of `save_pretrained`";
            return Err(Error::input(what).hint(convert));
        }
        let flag = |key: &str| match document.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(yes)) => Ok(*yes),
            Some(_) => Err(bad(format!("`{key}` is neither true nor false"))),
        };
        let rank = |key: &str, value: &Value| match value.as_u64() {
            Some(rank) if rank > 0 => Ok(rank),
            _ => Err(bad(format!("`{}` is no rank: {}", shown(key), shown(&value.to_string())))),
        };
        let alpha = |key: &str, value: &Value| match value.as_f64() {
            Some(alpha) if alpha != 0.0 && alpha.is_finite() => Ok(alpha),
            Some(_) => Err(bad(format!("`{}` is 0: the adapter does nothing", shown(key)))
                .hint("leave the adapter out, or put the alpha that it was trained with")),
            None => Err(bad(format!("`{}` is no number: {}", shown(key), shown(&value.to_string())))),
        };
        let needed = |key: &str| document.get(key).ok_or_else(|| bad(format!("`{key}` is missing")));
        Ok(Self {
            name: name.to_owned(),
            fan_in_fan_out: flag("fan_in_fan_out")?,
            rank: rank("r", needed("r")?)?,
            alpha: alpha("lora_alpha", needed("lora_alpha")?)?,
            rslora: flag("use_rslora")?,
            ranks: patterns(&document, "rank_pattern", &bad, rank)?,
            alphas: patterns(&document, "alpha_pattern", &bad, alpha)?,
            document,
        })
    }

    /// Rank of a module.
    ///
    /// # Errors
    /// A pattern that takes too long.
    pub fn rank(&self, module: &str) -> Result<u64> {
        Ok(self.find(&self.ranks, module)?.unwrap_or(self.rank))
    }

    /// The factor of B·A of a module: α/r, or α/√r.
    ///
    /// # Errors
    /// As [`Config::rank`].
    pub fn scale(&self, module: &str) -> Result<f32> {
        let (rank, alpha) = (self.rank(module)? as f64, self.find(&self.alphas, module)?.unwrap_or(self.alpha));
        Ok((alpha / if self.rslora { rank.sqrt() } else { rank }) as f32)
    }

    /// `base_model_name_or_path`, if it is there.
    pub fn base(&self) -> Option<&str> {
        self.document.get("base_model_name_or_path").and_then(Value::as_str)
    }

    /// The value of the first pattern that matches.
    fn find<T: Copy>(&self, patterns: &[(Pattern, T)], module: &str) -> Result<Option<T>> {
        for (pattern, value) in patterns {
            match pattern.is_match(module) {
                Ok(true) => return Ok(Some(*value)),
                Ok(false) => {}
                Err(pattern) => {
                    let (at, pattern) = (shown(&self.name), shown(pattern));
                    return Err(Error::input(format!("a pattern of `{at}` takes too long to match: `{pattern}`"))
                        .hint("write the module names out in `adapter_config.json`"));
                }
            }
        }
        Ok(None)
    }
}

/// Names of modules, as PEFT matches them: the whole name, or its end after a point.
#[derive(Debug)]
enum Pattern {
    /// A name in which nothing but the point has a meaning, which is any character.
    Name(String),
    Regex(Regex),
}

impl Pattern {
    fn new(pattern: &str) -> Option<Self> {
        if is_name(pattern) {
            return Some(Self::Name(pattern.to_owned()));
        }
        let mut regex = RegexBuilder::new(&format!(r"^(?:.*\.)?(?:{pattern})$"));
        let regex = regex.delegate_size_limit(REGEX_SIZE).delegate_dfa_size_limit(REGEX_SIZE);
        regex.backtrack_limit(REGEX_STEPS).build().ok().map(Self::Regex)
    }

    /// The pattern itself where it takes too long.
    fn is_match(&self, module: &str) -> std::result::Result<bool, &str> {
        match self {
            Self::Regex(regex) => regex.is_match(module).map_err(|_| regex.as_str()),
            Self::Name(name) => {
                let mut rest = module.chars().rev();
                let ends = name.chars().rev().all(|c| rest.next().is_some_and(|own| c == '.' || own == c));
                Ok(ends && rest.next().is_none_or(|before| before == '.'))
            }
        }
    }
}

/// True for a pattern in which nothing but the point has a meaning.
fn is_name(pattern: &str) -> bool {
    pattern.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'))
}

/// The patterns under `key`.
fn patterns<T>(
    document: &Value,
    key: &str,
    bad: &impl Fn(String) -> Error,
    value: impl Fn(&str, &Value) -> Result<T>,
) -> Result<Vec<(Pattern, T)>> {
    let map = match document.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(map)) if map.len() <= MOST => map,
        Some(Value::Object(_)) => return Err(bad(format!("`{key}` has more than {MOST} patterns"))),
        Some(_) => return Err(bad(format!("`{key}` is no object"))),
    };
    // Before any is compiled, which takes its time.
    if map.keys().filter(|pattern| !is_name(pattern)).count() > MOST_REGEXES {
        return Err(bad(format!("`{key}` has more than {MOST_REGEXES} patterns that are no plain names"))
            .hint("write the module names out"));
    }
    let read = |(text, given): (&String, &Value)| {
        let wrong = || bad(format!("`{key}` has {}, no regular expression, or too large a one", list([&**text], 1)));
        let pattern = Pattern::new(text).ok_or_else(wrong)?;
        Ok((pattern, value(&format!("{key}.{text}"), given)?))
    };
    map.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_their_regular_expressions_do() {
        for pattern in ["q_proj", "layers.0.q", "q.proj", ".", "..", "a.q_proj", "é", "[q]_proj", "q_proj|x"] {
            let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$")).unwrap();
            let own = Pattern::new(pattern).unwrap();
            for module in
                ["q_proj", "layers.0.q", "a.q_proj", "aq_proj", "b.a.q_proj", "q-proj", "", "é", "x.é", "a.x", "x"]
            {
                assert_eq!(own.is_match(module), Ok(regex.is_match(module).unwrap()), "{pattern} {module}");
            }
        }
        assert!(Pattern::new("(").is_none() && Pattern::new(r"(\pL{500}){500}").is_none());
        assert!(Pattern::new("(a|a)*(?=c)b").unwrap().is_match(&"a".repeat(40)).is_err());
    }
}
