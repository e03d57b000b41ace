//! What a `tokenizer.json` may ask for. Its library does whatever the file says: a dozen bytes can double a text over
//! and over, and steps within steps are tried in every reading.

use base64::Engine;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Deepest nesting; usual files reach 8.
const DEEPEST: usize = 16;
/// Most values, which is to say tokens and merges: usual files have up to 1.4 million.
const MOST_VALUES: usize = 1 << 21;
/// Longest description of a stage.
const LONGEST_STAGE: usize = 2 << 20;
/// Most steps of a stage.
const MOST_STEPS: usize = 64;
/// How many times longer the steps together may make a text.
const GROWTH: usize = 1024;
/// Longest text that one character may become.
const LONGEST_CHAR: usize = 256;
/// Most characters that a step may put before a text; usual are 1.
const LONGEST_PREFIX: usize = 16;
/// Longest word, in characters, that is cut into pieces: usual is 100. Every piece of it is looked up, from every place.
const LONGEST_WORD: u64 = 256;

/// The stages that change a text or what becomes of it.
#[derive(Deserialize)]
struct Stages<'a> {
    #[serde(borrow, default)]
    normalizer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pre_tokenizer: Option<&'a RawValue>,
    #[serde(borrow, default)]
    post_processor: Option<&'a RawValue>,
    #[serde(default)]
    model: Option<Model>,
}

/// What of a model makes it slow.
#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    max_input_chars_per_word: Option<Value>,
}

/// Why the tokenizer `file` is not given to its library, if it is not.
pub(super) fn check(file: &[u8]) -> Result<(), String> {
    let (depth, values) = measure(file);
    if depth > DEEPEST {
        return Err(format!("it is nested more than {DEEPEST} deep"));
    }
    if values > MOST_VALUES {
        return Err(format!("it has more than {MOST_VALUES} values"));
    }
    let stages: Stages<'_> = serde_json::from_slice(file).map_err(|e| e.to_string())?;
    let longest = stages.model.and_then(|model| model.max_input_chars_per_word);
    if let Some(longest) = longest.filter(|longest| longest.as_u64().is_none_or(|longest| longest > LONGEST_WORD)) {
        return Err(format!("its `max_input_chars_per_word` is {longest}, and {LONGEST_WORD} is the most"));
    }
    let mut growth = 1;
    for (name, stage) in [
        ("normalizer", stages.normalizer),
        ("pre_tokenizer", stages.pre_tokenizer),
        ("post_processor", stages.post_processor),
    ] {
        let Some(stage) = stage else { continue };
        if stage.get().len() > LONGEST_STAGE {
            return Err(format!("its `{name}` is longer than {LONGEST_STAGE} bytes"));
        }
        let stage = serde_json::from_str(stage.get()).map_err(|e| format!("`{name}`: {e}"))?;
        let mut steps = 0;
        walk(&stage, &mut |step| {
            steps += 1;
            growth = usize::saturating_mul(growth, grows(step)?);
            Ok(())
        })?;
        if steps > MOST_STEPS {
            return Err(format!("its `{name}` has more than {MOST_STEPS} steps"));
        }
    }
    match growth > GROWTH {
        true => Err(format!("it can make a text more than {GROWTH} times as long")),
        false => Ok(()),
    }
}

/// Depth and number of the values of a JSON text, which need not be right.
fn measure(file: &[u8]) -> (usize, usize) {
    let (mut depth, mut deepest, mut values) = (0usize, 0, 1);
    let (mut quoted, mut escaped) = (false, false);
    for byte in file {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            b',' if !quoted => values += 1,
            _ => {}
        }
    }
    (deepest, values)
}

/// Hands every object that has a type to `take`.
fn walk(value: &Value, take: &mut impl FnMut(&Value) -> Result<(), String>) -> Result<(), String> {
    match value {
        Value::Object(keys) => {
            if keys.contains_key("type") {
                take(value)?;
            }
            keys.values().try_for_each(|value| walk(value, take))
        }
        Value::Array(values) => values.iter().try_for_each(|value| walk(value, take)),
        _ => Ok(()),
    }
}

/// How many times longer a step may make a text.
fn grows(step: &Value) -> Result<usize, String> {
    let text = |key: &str| step.get(key).and_then(Value::as_str);
    Ok(match text("type") {
        Some("Replace") => {
            // A pattern may match the nothing between two characters.
            let between = usize::from(step.pointer("/pattern/Regex").is_some());
            between + text("content").map_or(0, |content| content.chars().count())
        }
        Some("Prepend") => match text("prepend").map_or(0, |text| text.chars().count()) {
            long if long > LONGEST_PREFIX => {
                return Err(format!(
                    "its `normalizer` puts {long} characters before a text, and {LONGEST_PREFIX} are the most"
                ));
            }
            _ => 1,
        },
        Some("Precompiled") => match text("precompiled_charsmap").map(longest_char) {
            Some(longest) if longest > LONGEST_CHAR => {
                return Err(format!("its `normalizer` makes a text of {longest} bytes of one character"));
            }
            // No text is all of such characters: this is no part of what steps may do together.
            _ => 1,
        },
        Some("TemplateProcessing") => {
            let pieces = step.get("single").and_then(Value::as_array).map_or(0, Vec::len);
            if pieces > MOST_STEPS {
                return Err(format!("its `post_processor` has more than {MOST_STEPS} pieces"));
            }
            1
        }
        _ => 1,
    }
    .max(1))
}

/// The longest text that a map of characters holds: behind a table and its length, texts that each end with a zero.
fn longest_char(map: &str) -> usize {
    let bytes = base64::engine::general_purpose::STANDARD.decode(map).unwrap_or_default();
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return 0 };
    let texts = rest.get(u32::from_le_bytes(*length) as usize..).unwrap_or_default();
    texts.split(|byte| *byte == 0).map(<[u8]>::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted() {
        assert_eq!(measure(br#"{"a[[[\"{": [1, {"b": "}}"}]}"#), (3, 2));
        let replace = |count: usize, pattern: &str, content: &str| {
            let step = format!(r#"{{"type":"Replace","pattern":{{"{pattern}":" "}},"content":"{content}"}}"#);
            let steps = vec![step; count].join(",");
            check(format!(r#"{{"normalizer":{{"type":"Sequence","normalizers":[{steps}]}}}}"#).as_bytes())
        };
        assert_eq!(replace(60, "String", "▁"), Ok(()));
        assert_eq!(replace(10, "String", "ab"), Ok(()));
        assert!(replace(11, "String", "ab").unwrap_err().contains("times as long"));
        assert_eq!(replace(10, "Regex", " "), Ok(()));
        assert!(replace(11, "Regex", " ").unwrap_err().contains("times as long"));
        assert!(replace(64, "String", "▁").unwrap_err().contains("more than 64 steps"));
        assert!(check(&b"[".repeat(17)).unwrap_err().contains("more than 16 deep"));
        let prepend = |count: usize| {
            let text = "▁".repeat(count);
            check(format!(r#"{{"normalizer":{{"type":"Prepend","prepend":"{text}"}}}}"#).as_bytes())
        };
        assert_eq!(prepend(16), Ok(()));
        assert!(prepend(17).unwrap_err().contains("puts 17 characters before a text"));
        let word = |longest: &str| {
            check(format!(r#"{{"model":{{"type":"WordPiece","max_input_chars_per_word":{longest}}}}}"#).as_bytes())
        };
        assert_eq!(["100", "256", "null"].map(word), [Ok(()), Ok(()), Ok(())]);
        for longest in ["257", "1000000000", "18446744073709551616"] {
            assert!(word(longest).unwrap_err().contains("`max_input_chars_per_word` is "), "{longest}");
        }
        let map = |text: &[u8]| {
            let map = [&4u32.to_le_bytes(), &[0; 4], &b"a\0"[..], text, b"\0b"].concat();
            let map = base64::engine::general_purpose::STANDARD.encode(map);
            check(format!(r#"{{"normalizer":{{"type":"Precompiled","precompiled_charsmap":"{map}"}}}}"#).as_bytes())
        };
        assert_eq!(map(&[b'x'; 256]), Ok(()));
        assert!(map(&[b'x'; 257]).unwrap_err().contains("of one character"));
    }
}
