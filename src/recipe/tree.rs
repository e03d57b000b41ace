//! YAML as a tree that remembers its lines, so that each message can say where.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use crate::{Error, Result};

/// Longest recipe, which is a page or two: what is larger is a mistake or an attack.
pub const MAX_BYTES: usize = 4 << 20;

/// A value and the line it is written on.
#[derive(Debug)]
pub(super) struct Node {
    pub line: u64,
    pub kind: Kind,
}

/// What YAML holds.
#[derive(Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Int(u64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key and its line.
#[derive(Debug)]
pub(super) struct Key {
    pub line: u64,
    pub text: String,
}

impl Kind {
    /// What sort of value it is, for messages.
    pub fn sort(&self) -> &'static str {
        match self {
            Self::Null => "empty",
            Self::Bool(_) => "true or false",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Reads one YAML document. Depth, size and the expansion of aliases are bounded.
pub(super) fn parse(text: &str, name: &str) -> Result<Node> {
    if text.len() > MAX_BYTES {
        return Err(Error::usage(format!("`{name}` is larger than a recipe can be ({} MiB)", MAX_BYTES >> 20)));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 32,
            flow_nesting_limit: 32,
            max_nodes: 200_000,
            max_events: 400_000,
            // Many models may well share one anchored block; the replay limit below stops what this heuristic is for.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000, max_replay_stack_depth: 16 },
        // Else a model called `y` would be a truth value.
        strict_booleans: true,
        // Our own message names the parameter.
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| match error.location() {
        Some(location) if location.line() > 0 => {
            Error::usage(format!("`{name}:{}`: {}", location.line(), message(&error)))
        }
        _ => Error::usage(format!("`{name}`: {}", message(&error))),
    })
}

const TOO_LARGE: &str = "too large for a recipe, or too deeply nested, once its aliases are written out";

/// The parser's message, without its place and in words for someone who writes recipes.
fn message(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::{Error as Yaml, MessageFormatter, UserMessageFormatter};
    let text = UserMessageFormatter.format_message(error.without_snippet());
    match error.without_snippet() {
        Yaml::Budget { .. } => TOO_LARGE.to_owned(),
        Yaml::RecursiveReferencesRequireWeakTypes { .. } => "an anchor holds itself".to_owned(),
        Yaml::NullIntoString { .. } => "a key is empty".to_owned(),
        Yaml::Unexpected { expected: "string scalar", .. } => "a key is not text".to_owned(),
        Yaml::UnknownAnchor { .. } => "alias of an anchor that is not above it".to_owned(),
        // Aliases that overrun their limit come wrapped in an error of their own.
        _ if text.starts_with("YAML document too large") => TOO_LARGE.to_owned(),
        _ => text.lines().next().unwrap_or_default().to_owned(),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let spanned = Spanned::<Kind>::deserialize(deserializer)?;
        Ok(Self { line: spanned.defined.line(), kind: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Kind, E> {
        Ok(Kind::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Kind, E> {
        Ok(Kind::Int(value))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Kind, E> {
        Ok(u64::try_from(value).map_or(Kind::Float(value as f64), Kind::Int))
    }

    fn visit_i128<E>(self, value: i128) -> std::result::Result<Kind, E> {
        Ok(Kind::Float(value as f64))
    }

    fn visit_u128<E>(self, value: u128) -> std::result::Result<Kind, E> {
        Ok(Kind::Float(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Kind, E> {
        Ok(Kind::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Kind, E> {
        Ok(Kind::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Kind, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element()? {
            list.push(node);
        }
        Ok(Kind::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Kind, A::Error> {
        let mut pairs = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            pairs.push((Key { line: key.defined.line(), text: key.value }, map.next_value()?));
        }
        Ok(Kind::Map(pairs))
    }
}
