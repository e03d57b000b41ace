//! What computes a merge, as far as it decides the bytes, and what others decide of it where several machines do one merge.

use serde::{Deserialize, Serialize};

use super::Job;
use crate::executor::Executor;
use crate::kernels;
use crate::recipe::Recipe;

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// As a person knows it.
    pub name: String,
    /// What of it decides the bytes: neither threads nor memory do.
    pub device: String,
    /// SHA-256 of what a GPU runs, if one does.
    pub wgsl_sha256: Option<String>,
}

impl Origin {
    /// Several devices, whose parts cannot be told from each other.
    pub fn several(origins: &[&Self]) -> Self {
        let mut names: Vec<&str> = origins.iter().map(|origin| origin.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let wgsl_sha256 = origins.iter().find_map(|origin| origin.wgsl_sha256.clone());
        let name = names.join(", ");
        Self { device: format!("several: {name} on {}", std::env::consts::ARCH), name, wgsl_sha256 }
    }
}

impl Job {
    /// What computes this merge, or has computed it.
    pub(crate) fn origin(&self) -> Origin {
        if let Some(origin) = &self.origin {
            return origin.clone();
        }
        let (device, wgsl_sha256) = match &self.opened.executor {
            Executor::Cpu(_) => ("CPU", None),
            Executor::Gpu(_) => (self.opened.name.as_str(), Some(kernels::wgsl_sha256())),
        };
        let device = format!("{device} on {}", std::env::consts::ARCH);
        Origin { name: self.opened.title(), device, wgsl_sha256 }
    }

    /// Says that others have taken so many seconds before this.
    pub(crate) fn take_seconds(&mut self, seconds: f64) {
        self.spent = seconds;
    }

    /// Says what `given`, the recipe that this one was resolved from, calls everything: so is it called in the result.
    pub(crate) fn take_names(&mut self, given: Recipe) {
        self.recipe = given;
    }

    /// Says that others have computed the tensors.
    pub(crate) fn take_origin(&mut self, origin: Origin) {
        self.origin = Some(origin);
    }
}
