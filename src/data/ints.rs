//! Whole numbers of a `.safetensors` file.

use crate::checkpoint::text::shown;
use crate::checkpoint::{Checkpoint, TensorInfo};
use crate::error::{Error, Result};

/// A tensor of whole numbers.
pub(super) struct Ints<'a> {
    file: &'a Checkpoint,
    number: usize,
    info: &'a TensorInfo,
    size: usize,
    decode: fn(&[u8]) -> i64,
}

impl<'a> Ints<'a> {
    /// Tensor `name` of `file`, which messages call `at`.
    ///
    /// # Errors
    /// It is not there, or of a type that is not read.
    pub(super) fn open(file: &'a Checkpoint, name: &str, at: &str) -> Result<Self> {
        let Some((number, info)) = file.get(name) else {
            return Err(Error::input(format!("`{at}` has no `{}`", shown(name))));
        };
        let (size, decode): (usize, fn(&[u8]) -> i64) = match info.dtype.header_name() {
            "I64" => (8, |bytes| bytes.try_into().map_or(0, i64::from_le_bytes)),
            "I32" => (4, |bytes| bytes.try_into().map_or(0, i32::from_le_bytes).into()),
            "U8" | "BOOL" => (1, |bytes| bytes.first().copied().unwrap_or(0).into()),
            other => {
                let what = format!("`{at}` has `{}` of type {other}, not of I64 or I32", shown(name));
                return Err(Error::input(what).hint("save it as torch.int64"));
            }
        };
        Ok(Self { file, number, info, size, decode })
    }

    pub(super) fn shape(&self) -> &[u64] {
        &self.info.shape
    }

    /// `count` numbers from number `start` on.
    pub(super) fn read(&self, start: u64, count: u64) -> Result<Vec<i64>> {
        let mut bytes = vec![0; count as usize * self.size];
        self.file.read_at(self.number, start * self.size as u64, &mut bytes)?;
        Ok(bytes.chunks_exact(self.size).map(self.decode).collect())
    }
}
