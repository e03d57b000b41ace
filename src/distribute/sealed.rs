//! Documents that carry a digest of themselves, so that one that was cut, changed or exchanged is not believed.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::checkpoint::sha256;
use crate::checkpoint::text::shown;

#[derive(Serialize, Deserialize)]
struct Document {
    schema: String,
    /// Of the text of `content`.
    sha256: String,
    content: Box<RawValue>,
}

/// The text of a document of `schema`, and its digest.
pub fn seal(schema: &str, content: &impl Serialize) -> (Vec<u8>, String) {
    let content = serde_json::value::to_raw_value(content).expect("plain data");
    let id = sha256(content.get());
    let document = Document { schema: schema.to_owned(), sha256: id.clone(), content };
    (serde_json::to_vec(&document).expect("plain data"), id)
}

/// What `bytes` hold, and their digest; or what is wrong with them, to be said after their name.
pub fn open<T: DeserializeOwned>(schema: &str, bytes: &[u8]) -> Result<(T, String), String> {
    let damaged = |e: serde_json::Error| format!("is damaged: {}", shown(&e.to_string()));
    let document: Document = serde_json::from_slice(bytes).map_err(damaged)?;
    if document.schema != schema {
        return Err(format!("has the schema `{}`, not `{schema}`", shown(&document.schema)));
    }
    let id = sha256(document.content.get());
    if id != document.sha256 {
        return Err("was changed after it was made: its digest is another".into());
    }
    Ok((serde_json::from_str(document.content.get()).map_err(damaged)?, id))
}
