//! A sink that is written to on the way, in more than one attempt if the device fails.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::checkpoint::Sink;
use crate::error::Result;
use crate::report::TensorReport;

/// A sink, and what is to be said of the tensors that it has taken: it wants none of them again.
pub struct Written<'a> {
    sink: &'a dyn Sink,
    reports: Mutex<Vec<(usize, TensorReport)>>,
}

impl<'a> Written<'a> {
    /// Nothing taken yet.
    pub fn new(sink: &'a dyn Sink) -> Self {
        Self { sink, reports: Mutex::default() }
    }

    /// Whether tensor number `tensor` is to be computed.
    pub fn wants(&self, tensor: usize) -> bool {
        self.sink.wants(tensor) && !self.taken().iter().any(|(taken, _)| *taken == tensor)
    }

    /// Takes all of the bytes of tensor number `tensor`.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn write(&self, tensor: usize, bytes: &[u8]) -> Result<()> {
        self.sink.write_at(tensor, 0, bytes)
    }

    /// Takes note that all of tensor number `tensor` was handed over.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn complete(&self, tensor: usize, report: TensorReport) -> Result<()> {
        self.sink.complete(tensor, &|| report.record())?;
        self.taken().push((tensor, report));
        Ok(())
    }

    fn taken(&self) -> MutexGuard<'_, Vec<(usize, TensorReport)>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reports, with the tensors' places.
    pub fn into_reports(self) -> Vec<(usize, TensorReport)> {
        self.reports.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
