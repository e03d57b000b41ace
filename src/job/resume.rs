//! What decides the bytes of a merge, so that another run can tell whether it may go on; and what it then has already.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::provenance::located;
use super::{Job, Output};
use crate::checkpoint::text::{path, shown};
use crate::checkpoint::{Access, Checkpoint, Fingerprint, LAYOUT, Writer, finished, recorded, sha256, side_files};
use crate::data::Sample;
use crate::error::{Error, Kind, Result};
use crate::executor::Executor;
use crate::methods::Combine;
use crate::progress::Progress;
use crate::report::TensorReport;

/// Names in a fingerprint that [`verify`](crate::verify) looks for.
pub(crate) const KERNELS: &str = "kernels";
pub(crate) const MERGED: &str = "calibrated merge";
pub(crate) const PRODUCTS: &str = "products of the forward pass";
pub(crate) const DECOMPOSITION: &str = "largest decomposition on the device";

impl Job {
    /// The receipt (`magic.json`) of a result that is there already, complete and of this very merge, if `output` asks to
    /// resume.
    ///
    /// # Errors
    /// A result of another merge, or one that is not whole.
    pub fn done(&self, output: &Output) -> Result<Option<Value>> {
        if !output.resume {
            return Ok(None);
        }
        let fingerprint = self.fingerprint(output)?;
        // The sizes of an adapter are known only when it is made.
        let layout = match &self.adapter {
            Some(_) => None,
            None => Some(self.layout(output.shard_size)?),
        };
        finished(&output.dir, layout.as_ref(), &fingerprint, output.overwrite)
    }

    /// Whether a merge that was interrupted can go on. One whose result is an adapter cannot: its file is laid out when
    /// all ranks are known.
    #[doc(hidden)]
    pub fn resumes(&self) -> bool {
        self.adapter.is_none()
    }

    pub(super) fn access<'a>(&'a self, output: &Output, fingerprint: &'a Fingerprint) -> Access<'a> {
        let fingerprint = self.resumes().then_some(fingerprint);
        let hashed = self.is_hashed(output.hash);
        Access { overwrite: output.overwrite, resume: output.resume, fingerprint, others: &self.others, hashed }
    }

    /// Everything that decides the bytes of the output, by name.
    pub(crate) fn fingerprint(&self, output: &Output) -> Result<Fingerprint> {
        let mut print = self.decisive()?;
        print.insert(LAYOUT.into(), self.layout(output.shard_size)?.describe());
        let dtype = self.recipe.output_dtype()?.unwrap_or("that of the base");
        print.insert("element type (--dtype)".into(), dtype.to_owned());
        Ok(print)
    }

    /// Everything that decides the bytes of the tensors, by name.
    pub(crate) fn decisive(&self) -> Result<Fingerprint> {
        let origin = self.origin();
        let decomposes = self.plan.tensors.iter().any(|tensor| matches!(tensor.combine, Combine::Decompose(_)));
        let mut print = Fingerprint::from([
            ("version".into(), env!("CARGO_PKG_VERSION").to_owned()),
            ("recipe".into(), self.resolved.to_yaml()),
            ("seed".into(), self.plan.seed.to_string()),
            ("device".into(), origin.device),
        ]);
        let mut add = |name: &str, value: String| print.insert(name.to_owned(), value);
        if let Some(kernels) = origin.wgsl_sha256 {
            add(KERNELS, kernels);
        }
        if let Some(merged) = self.given {
            add(MERGED, located(self.checkpoints[merged].name(), None));
        }
        if self.opened.executor.fast_gemm().is_some() {
            add(PRODUCTS, "by cooperative matrices".into());
        }
        if decomposes && matches!(self.opened.executor, Executor::Gpu(_)) {
            // More than this is decomposed on the host.
            add(DECOMPOSITION, self.plan.memory.decomposition().to_string());
        }
        if let Some(names) = &self.sensitive {
            let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
            names.sort_unstable();
            add("list of sensitive tensors", sha256(names.join("\n")));
        }
        if let Some(features) = &self.features {
            let mut text = format!("{:?}", features.sets.of);
            for sample in features.sets.sets.iter().flat_map(|set| &set.samples) {
                let bytes: &[u8] = match sample {
                    Sample::Tokens(ids) => bytemuck::cast_slice(ids),
                    Sample::Pixels(pixels) => bytemuck::cast_slice(pixels),
                };
                let _ = write!(text, " {}", sha256(bytes));
            }
            add("samples", sha256(text));
        }
        for (name, bytes) in side_files(self.model())? {
            add(&format!("`{name}` of `{}`", self.model().name()), sha256(bytes));
        }
        print.extend(self.checkpoints.iter().flat_map(Checkpoint::stamps));
        Ok(print.into_iter().map(|(name, value)| (self.told(&name), value)).collect())
    }

    /// Reports of the tensors that an earlier run wrote.
    pub(super) fn kept(&self, writer: &Writer, progress: &Progress) -> Result<Vec<(usize, TensorReport)>> {
        let mut reports = Vec::new();
        for (place, tensor) in self.plan.tensors.iter().enumerate() {
            let Some(record) = writer.kept(place) else { continue };
            let Some(report) = TensorReport::recorded(tensor, record) else {
                let what =
                    format!("the journal of the unfinished merge says nothing of use of `{}`", shown(&tensor.name));
                return Err(Error::output(what).hint("start again with `--overwrite` (without `--resume`)"));
            };
            progress.tensors.fetch_add(1, Ordering::Relaxed);
            progress.bytes.fetch_add(tensor.bytes_moved(), Ordering::Relaxed);
            reports.push((place, report));
        }
        Ok(reports)
    }
}

/// `error`, and what is left of a merge of `all` tensors that ended with it.
pub(super) fn unfinished(error: Error, output: &Output, all: usize) -> Error {
    let at = path(&output.dir);
    match (recorded(&output.dir).filter(|_| all > 0), error.kind()) {
        (Some(kept), Kind::Interrupted) => {
            Error::new(Kind::Interrupted, format!("interrupted: {kept} of {all} tensors are safe in `{at}`"))
                .hint("to go on: the same command with `--resume`")
        }
        (None, Kind::Interrupted) => {
            Error::new(Kind::Interrupted, format!("interrupted: nothing was written to `{at}`"))
        }
        (Some(kept), _) => error.hint(format!(
            "{kept} of {all} tensors are safe in `{at}`: once this is mended, go on by the same command with `--resume`"
        )),
        (None, _) => error,
    }
}
