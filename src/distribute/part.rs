//! A shard that one worker made, and its receipt.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::manifest::Shard;
use super::sealed;
use crate::checkpoint::{PARTS, check_file, read_document, temporary};
use crate::error::Result;
use crate::job::Origin;
use crate::progress::Progress;

/// Name and version of the document.
const SCHEMA: &str = "magic-part/1";

/// What a worker says of its shard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Receipt {
    /// Digest of the plan.
    pub plan: String,
    /// Digest of the factors of feature space, where there are any.
    pub factors: Option<String>,
    /// Its file.
    pub file: String,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
    /// What computed it.
    pub origin: Origin,
    /// Wall time in seconds.
    pub seconds: f64,
    /// What is to be said of each tensor.
    pub tensors: Vec<(String, Value)>,
}

impl Receipt {
    /// The receipt of `shard`, with `sha256`, made on `origin`.
    pub fn new(plan: &str, shard: &Shard, sha256: String, origin: Origin, tensors: Vec<(String, Value)>) -> Self {
        let (plan, file, bytes) = (plan.to_owned(), shard.file.clone(), shard.bytes);
        Self { plan, factors: None, file, bytes, sha256, origin, seconds: 0.0, tensors }
    }

    /// The document.
    pub fn document(&self) -> Vec<u8> {
        sealed::seal(SCHEMA, self).0
    }

    /// Reads that of `shard` in `dir`, checks it and the shard itself; what is wrong, if anything is. `factors` is the digest
    /// of those that are there.
    ///
    /// # Errors
    /// An interrupt, a folder that cannot be read.
    pub fn check(
        dir: &Path,
        plan: &str,
        factors: Option<&str>,
        shard: &Shard,
        progress: &Progress,
    ) -> Result<std::result::Result<Self, String>> {
        let name = receipt_name(&shard.file);
        let bytes = match read_document(&dir.join(PARTS), &name) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Err(format!("its receipt `{name}` is missing"))),
            Err(error) => return Ok(Err(error.to_string())),
        };
        let receipt: Self = match sealed::open(SCHEMA, &bytes) {
            Ok((receipt, _)) => receipt,
            Err(what) => return Ok(Err(format!("its receipt `{name}` {what}"))),
        };
        let names = || receipt.tensors.iter().map(|(name, _)| name);
        let of_shard = receipt.file == shard.file && names().eq(shard.tensors.iter().map(|tensor| &tensor.name));
        if receipt.plan != plan || receipt.bytes != shard.bytes || !of_shard {
            return Ok(Err(format!("its receipt `{name}` is that of another merge")));
        }
        if receipt.factors.as_deref() != factors {
            return Ok(Err(format!("its receipt `{name}` is of other factors of feature space")));
        }
        let wrong = check_file(&found(dir, &shard.file), &shard.file, shard.bytes, Some(&receipt.sha256), &|_| {
            progress.check()
        })?;
        Ok(wrong.map_or(Ok(receipt), Err))
    }
}

/// Name of the receipt of `file`.
pub fn receipt_name(file: &str) -> String {
    format!("{file}.json")
}

/// Where the shard `file` is: among the parts, or, once the end has begun, beside its final name or there.
pub fn found(dir: &Path, file: &str) -> PathBuf {
    let places = [dir.join(temporary(file)), dir.join(file)];
    places.into_iter().find(|place| place.exists()).unwrap_or_else(|| dir.join(PARTS).join(file))
}
