//! What a finished merge, and other models on the same samples, get right: `scores.json` beside it, as `magic eval --report`
//! measured it. It says which receipt it belongs to; beside another it counts for nothing.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checkpoint::{Finished, REPORT, SCORES, sha256};
use crate::error::{Error, Result};
use crate::evaluate::Evaluation;
use crate::html;

/// Name and version of the document.
const SCHEMA: &str = "magic-scores/1";

/// Most scores of a merge.
const MOST: usize = 1000;

/// What a model gets right.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Score {
    /// The model, as it was named.
    pub model: String,
    /// Whether it is the merge itself.
    pub merge: bool,
    /// Whose classifier was used, if another's was.
    pub head: Option<String>,
    /// Where it was computed.
    pub device: String,
    /// What was found.
    #[serde(flatten)]
    pub found: Evaluation,
}

/// The document.
#[derive(Debug, Serialize, Deserialize)]
pub struct Scores {
    schema: String,
    /// SHA-256 of the receipt that it belongs to, `magic.json` as it is.
    receipt: String,
    /// In the order in which they were measured.
    pub scores: Vec<Score>,
}

impl Scores {
    /// Those beside a finished merge; `None` if there are none, if they cannot be read or are of another merge.
    pub(crate) fn of(finished: &Finished) -> Option<Self> {
        let scores: Self = serde_json::from_str(&finished.text(SCORES)?).ok()?;
        (scores.schema == SCHEMA && scores.receipt == sha256(&finished.text)).then_some(scores)
    }
}

/// Whether scores may be put beside the merge in `dir`, found out before they are measured.
///
/// # Errors
/// No finished merge, or one whose page cannot be made.
pub fn check(dir: &Path) -> Result<()> {
    html::of(&Finished::open(dir)?, dir).map(drop)
}

/// Whether `model` names the merge in `dir`.
pub fn is_merge(model: &str, dir: &Path) -> bool {
    let same = || Some(Path::new(model).canonicalize().ok()? == dir.canonicalize().ok()?);
    same().unwrap_or(false)
}

/// Puts `new` beside the merge in `dir`, in the place of older scores of the same models, heads and samples, and writes its
/// page anew. Returns where that is.
///
/// # Errors
/// As [`check`], too many scores, a folder in which another merge writes, a failed write.
pub fn add(dir: &Path, new: Vec<Score>) -> Result<PathBuf> {
    let finished = Finished::open(dir)?;
    let mut scores = Scores::of(&finished).map_or(Vec::new(), |known| known.scores);
    for score in new {
        // The merge is the same, whatever it is called.
        let model = |score: &Score| (!score.merge).then(|| score.model.clone());
        let key = |score: &Score| (model(score), score.head.clone(), score.found.data.clone());
        match scores.iter_mut().find(|known| key(known) == key(&score)) {
            Some(known) => *known = score,
            None => scores.push(score),
        }
    }
    if scores.len() > MOST {
        return Err(Error::output(format!("`{SCORES}` would hold more than {MOST} scores"))
            .hint("remove the file to begin anew"));
    }
    let receipt = sha256(&finished.text);
    let mut text =
        serde_json::to_string_pretty(&Scores { schema: SCHEMA.into(), receipt, scores }).expect("plain data");
    text.push('\n');
    finished.replace(SCORES, text.as_bytes())?;
    let page = html::of(&finished, dir)?;
    finished.replace(REPORT, page.as_bytes())?;
    Ok(dir.join(REPORT))
}
