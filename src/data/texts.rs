//! Samples from text: `.txt` and `.jsonl`, through the model's tokenizer.

use std::path::Path;

use serde_json::Value;

use super::labels::{Label, Labels};
use super::lines::{Line, Lines};
use super::tokenizer::Tokenizer;
use super::{Sample, Samples, ids};
use crate::checkpoint::Checkpoint;
use crate::checkpoint::text::{self, shown};
use crate::error::{Error, Result};
use crate::figures;

/// How far a file is searched for the names of labels.
const NAMES_WITHIN: u64 = 1 << 30;

/// How a line holds its text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The line is the text.
    Plain,
    /// The line is an object with `text` and perhaps `label`.
    Json,
}

/// At most `limit` samples of the file. Lines that give no token are left out; samples longer than `positions` are
/// cut to it.
pub(super) fn read(
    path: &Path,
    form: Form,
    (vocab, positions): (u32, u32),
    model: &Checkpoint,
    limit: usize,
) -> Result<Samples> {
    let at = text::path(path);
    let mut lines = Lines::open(path)?;
    let tokenizer = Tokenizer::open(model)?;
    let mut out = Samples::default();
    let mut labels = Labels::default();
    let (mut cut, mut void) = (0, 0);
    while out.samples.len() < limit {
        let Some(line) = lines.next()? else { break };
        let (number, place) = (line.number, format!("line {} of `{at}`", line.number));
        let (text, label) = form.parse(line, &place)?;
        labels.meet(&label, number, &at)?;
        let encoded = tokenizer.encode(&text, positions as usize, &place)?;
        if text.trim().is_empty() || encoded.ids.is_empty() {
            void += 1;
            continue;
        }
        let place = || format!("{place}, by `{}`,", tokenizer.at());
        let ids = ids(encoded.ids.into_iter().map(i64::from), vocab, place, model)?;
        cut += usize::from(encoded.cut);
        out.samples.push(Sample::Tokens(ids));
        labels.push(label);
    }
    if labels.are_names() && !rest_of_names(&mut lines, form, &mut labels, &at)? {
        let most = text::size(NAMES_WITHIN);
        out.warnings.push(format!("labels of `{at}` are numbered by the names in its first {most}"));
    }
    if cut > 0 {
        let all = out.samples.len();
        out.warnings
            .push(format!("{cut} of {all} samples of `{at}` cut to {positions} tokens, the most the model takes"));
    }
    if void > 0 {
        let what = figures::plural(void, "line");
        out.warnings.push(format!("{what} of `{at}` without any token left out"));
    }
    (out.labels, out.classes) = labels.finish();
    Ok(out)
}

/// Meets the labels of the lines that are left; false if there are too many.
fn rest_of_names(lines: &mut Lines<'_>, form: Form, labels: &mut Labels, at: &str) -> Result<bool> {
    while lines.read() < NAMES_WITHIN {
        let Some(line) = lines.next()? else { return Ok(true) };
        let (number, place) = (line.number, format!("line {} of `{at}`", line.number));
        let (_, label) = form.parse(line, &place)?;
        labels.meet(&label, number, at)?;
    }
    Ok(false)
}

impl Form {
    /// Text and label of a line.
    fn parse(self, line: Line, place: &str) -> Result<(String, Label)> {
        if self == Self::Plain {
            return Ok((line.text, Label::None));
        }
        let bad = |what: &str| {
            Error::input(format!("{place} {what}"))
                .hint(r#"each line is a JSON object: {"text": "…"}, or {"text": "…", "label": 0}"#)
        };
        let value: Value = serde_json::from_str(&line.text)
            .map_err(|e| bad(&format!("is not a JSON object: {}", shown(&e.to_string()))))?;
        let Value::Object(mut keys) = value else { return Err(bad("is not a JSON object")) };
        let text = match keys.remove("text") {
            Some(Value::String(text)) => text,
            Some(_) => return Err(bad("has a `text` that is not a string")),
            None => return Err(bad("has no `text`")),
        };
        let label = match keys.remove("label") {
            None | Some(Value::Null) => Label::None,
            Some(Value::String(name)) => Label::Name(name),
            Some(value) => match value.as_u64().and_then(|number| u32::try_from(number).ok()) {
                Some(number) => Label::Number(number),
                None => {
                    let given = shown(&value.to_string());
                    return Err(bad(&format!(
                        "has the label `{given}`, which is neither a name nor a number from 0 on"
                    )));
                }
            },
        };
        Ok((text, label))
    }
}
