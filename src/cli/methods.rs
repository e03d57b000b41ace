//! The merge methods.

use magic_merge::methods::{Base, METHODS, Method};
use serde_json::{Value, json};

use super::tables::pairs;

/// Formula, parameters and paper of each.
pub fn text() -> String {
    let lines = |method: &Method| {
        let params: Vec<&str> = method.params.iter().map(|(name, _)| *name).collect();
        [(method.name, method.formula.to_owned()), ("", params.join(", ")), ("", method.paper.to_owned())]
    };
    pairs(METHODS.iter().flat_map(lines))
}

/// The same as a document.
pub fn document() -> Value {
    let method = |method: &Method| {
        json!({
            "name": method.name,
            "formula": method.formula,
            "parameters": method.params.iter().map(|(name, default)| ((*name).to_owned(), (*default).into())).collect::<serde_json::Map<_, Value>>(),
            "paper": method.paper,
            "needs_base": method.base == Base::Required,
            "experts": method.experts,
        })
    };
    json!({"schema": "magic-methods/1", "methods": METHODS.iter().map(method).collect::<Vec<_>>()})
}
