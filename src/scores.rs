//! What a finished merge, and other models on the same samples, get right: `scores.json` beside it, as `magic eval --report`
//! measured it. It says which receipt it belongs to; beside another it counts for nothing.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checkpoint::text::{path, shown};
use crate::checkpoint::{Checkpoint, FileRecord, Finished, RECEIPT, REPORT, SCORES, alone, sha256};
use crate::error::{Error, Result};
use crate::evaluate::Evaluation;
use crate::html;
use crate::report::{self, Input};

/// Name and version of the document.
const SCHEMA: &str = "magic-scores/1";

/// Most scores of a merge.
const MOST: usize = 1000;

/// Most bytes of weights that are hashed before they are measured: more would take long.
const HASHED: u64 = 1_000_000_000;

/// What a model is to the merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Itself.
    Merge,
    /// Its base.
    Base,
    /// One of its experts, counted from one.
    Expert(usize),
    /// What only an adapter of it stands on.
    Below,
    /// Nothing.
    Other,
}

/// What a model gets right.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Score {
    /// The model, as it was named.
    pub model: String,
    /// What it is to the merge.
    pub role: Role,
    /// The first file of each checkpoint that it is read from, whatever they were called.
    pub files: Vec<String>,
    /// Whose classifier was used, if another's was.
    pub head: Option<String>,
    /// The same of that.
    pub head_files: Vec<String>,
    /// Where the samples lie, whatever they were called.
    pub data_path: String,
    /// Where it was computed.
    pub device: String,
    /// What was found.
    #[serde(flatten)]
    pub found: Evaluation,
}

impl Score {
    /// Of two scores with the same of it, the newer counts. The merge is the same, whatever it is called.
    fn key(&self) -> (Option<&[String]>, &[String], &str, usize) {
        let files = (self.role != Role::Merge).then_some(self.files.as_slice());
        (files, &self.head_files, &self.data_path, self.found.samples)
    }
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
    /// Those beside a finished merge, if there are any; else why they do not count.
    pub(crate) fn of(finished: &Finished) -> std::result::Result<Option<Self>, String> {
        let damaged = |why: &str| format!("`{SCORES}` is damaged, and its scores are left out: {}", shown(why));
        if !finished.has(SCORES) {
            return Ok(None);
        }
        let text = finished.text(SCORES).ok_or_else(|| damaged("it cannot be read as text"))?;
        let scores: Self = serde_json::from_str(&text).map_err(|e| damaged(&e.to_string()))?;
        if scores.schema != SCHEMA {
            return Err(damaged(&format!("its schema is `{}`, not `{SCHEMA}`", scores.schema)));
        }
        if scores.receipt != sha256(&finished.text) {
            return Err(format!("`{SCORES}` is of another merge than `{RECEIPT}`, and its scores are left out"));
        }
        Ok(Some(scores))
    }
}

/// The part of a receipt that tells what a model is to the merge.
#[derive(Deserialize)]
struct Made {
    inputs: Vec<Input>,
    base: Option<String>,
    experts: Vec<String>,
    files: Vec<FileRecord>,
}

impl Made {
    /// What the model that is read from `files` is to the merge in `dir`.
    fn role(&self, files: &[String], dir: &Path) -> Role {
        let holds =
            |input: &Input, file: &str| input.files.iter().any(|known| resolved(Path::new(&known.path)) == file);
        let place = |file: &str| self.inputs.iter().position(|input| holds(input, file));
        let Some((own, below)) = files.split_first() else { return Role::Other };
        let base = usize::from(self.base.is_some());
        let experts = base..base + self.experts.len();
        // An adapter is what it is only on a model that it stood on there too.
        if below.iter().any(|file| place(file).is_none_or(|at| experts.contains(&at))) {
            return Role::Other;
        }
        if Path::new(own).parent() == Some(Path::new(&resolved(dir))) {
            return Role::Merge;
        }
        match place(own) {
            None => Role::Other,
            Some(0) if base == 1 => Role::Base,
            Some(at) if experts.contains(&at) => Role::Expert(at + 1 - base),
            Some(_) => Role::Below,
        }
    }
}

/// A model whose scores are to be put beside a merge.
#[derive(Debug)]
pub struct Subject {
    dir: PathBuf,
    model: String,
    role: Role,
    files: Vec<String>,
    head: Option<String>,
    head_files: Vec<String>,
    /// What is to be known before it is measured, each a line.
    pub warnings: Vec<String>,
}

impl Subject {
    /// The model, and whose classifier it borrows, each as it was named and as it was opened; the merge is in `dir`.
    ///
    /// # Errors
    /// No finished merge, one whose page cannot be made or whose weights are not those that were recorded, a folder in which
    /// another run keeps writing.
    pub fn new(dir: &Path, model: (&str, &Checkpoint), head: Option<(&str, &Checkpoint)>) -> Result<Self> {
        let alone = alone(dir)?;
        let finished = Finished::open(dir)?;
        drop(alone);
        html::of(&finished, dir)?;
        let made: Made = report::read(&finished.receipt, &path(&dir.join(RECEIPT)))?;
        let files = files(model.1);
        let role = made.role(&files, dir);
        let mut warnings = html::faults(&finished);
        match role {
            Role::Merge => whole(&finished, &made, dir)?,
            Role::Other => warnings.push(format!(
                "`{}` is neither the merge in `{}` nor one of its inputs: the page calls it another model",
                shown(model.0),
                path(dir)
            )),
            _ => {}
        }
        if Scores::of(&finished).is_err() {
            warnings.push(format!("`{SCORES}` begins anew: what is in it will be replaced"));
        }
        let head_files = head.map_or(Vec::new(), |(_, checkpoint)| self::files(checkpoint));
        let head = head.map(|(name, _)| name.to_owned());
        Ok(Self { dir: dir.to_owned(), model: model.0.to_owned(), role, files, head, head_files, warnings })
    }

    /// Puts what was `found` beside the merge, in the place of older scores of the same model, head and samples, as many of
    /// them, and writes its page anew. Returns where that is.
    ///
    /// # Errors
    /// As [`new`](Self::new), too many scores, a failed write.
    pub fn add(&self, device: &str, found: &[Evaluation]) -> Result<PathBuf> {
        let _alone = alone(&self.dir)?;
        let finished = Finished::open(&self.dir)?;
        let mut scores = Scores::of(&finished).ok().flatten().map_or(Vec::new(), |known| known.scores);
        for score in found.iter().map(|found| self.score(device, found)) {
            match scores.iter_mut().find(|known| known.key() == score.key()) {
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
        let page = html::of(&finished, &self.dir)?;
        finished.replace(REPORT, page.as_bytes())?;
        Ok(self.dir.join(REPORT))
    }

    fn score(&self, device: &str, found: &Evaluation) -> Score {
        Score {
            model: self.model.clone(),
            role: self.role,
            files: self.files.clone(),
            head: self.head.clone(),
            head_files: self.head_files.clone(),
            data_path: resolved(Path::new(&found.data)),
            device: device.to_owned(),
            found: found.clone(),
        }
    }
}

/// Refuses weights that are not those that were recorded; of large ones, only their sizes are looked at.
fn whole(finished: &Finished, made: &Made, dir: &Path) -> Result<()> {
    let bytes = made.files.iter().map(|record| record.bytes).fold(0, u64::saturating_add);
    for record in &made.files {
        let sha256 = record.sha256.clone().filter(|_| bytes <= HASHED);
        if let Some(what) = finished.check(&FileRecord { sha256, ..record.clone() }, &|_| Ok(()))? {
            let what = format!("the merge in `{}` is not as `{RECEIPT}` has it: {what}", path(dir));
            return Err(Error::input(what).hint(format!("magic verify {}", path(dir))));
        }
    }
    Ok(())
}

/// The first file of each checkpoint that `model` is read from, its own first.
fn files(model: &Checkpoint) -> Vec<String> {
    let own = model.files().next().map(resolved);
    let mut all: Vec<String> = own.into_iter().chain(model.read_from().into_iter().flat_map(files)).collect();
    all.dedup(); // a model with an adapter has the adapter's own
    all
}

/// `path` without links and detours, if there is something at it.
fn resolved(path: &Path) -> String {
    path.canonicalize().unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}
