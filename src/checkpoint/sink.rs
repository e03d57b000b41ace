//! What a merge hands its tensors to: the writer of an output, or whoever compares them with one that is there.

use serde_json::Value;

use super::writer::Writer;
use crate::error::Result;

/// Takes the tensors of a merge, by their places in its plan. Any thread may call it at any time.
pub trait Sink: Sync {
    /// Whether tensor number `tensor` is to be computed.
    fn wants(&self, tensor: usize) -> bool;

    /// Takes `bytes` of tensor number `tensor` from `offset` on; pieces come in any order.
    ///
    /// # Errors
    /// What ends the merge, such as a failed write.
    fn write_at(&self, tensor: usize, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Takes note that all of a tensor was handed over, and of what is to be said of it.
    ///
    /// # Errors
    /// As [`write_at`](Self::write_at).
    fn complete(&self, tensor: usize, report: &dyn Fn() -> Value) -> Result<()>;
}

impl Sink for Writer {
    fn wants(&self, tensor: usize) -> bool {
        self.kept(tensor).is_none()
    }

    fn write_at(&self, tensor: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        self.write_at(tensor, offset, bytes)
    }

    fn complete(&self, tensor: usize, report: &dyn Fn() -> Value) -> Result<()> {
        self.complete(tensor, report)
    }
}
