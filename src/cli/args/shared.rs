//! Flags of several commands, though not of all.

use magic_merge::device::Wanted;

/// Products of a forward pass.
#[derive(Debug, clap::Args)]
pub struct Products {
    /// Compute products of the forward pass by the GPU's cooperative matrices: f16 inputs, f32 sums
    ///
    /// For speed (tensor cores, simdgroup matrices), and less exact: rows are scaled to the range of f16 and rounded to its
    /// 11 bits. What that errs by is measured in the run and reported. `magic devices --json` tells which adapters have them
    /// (`cooperative`); on any other it is an error.
    #[arg(long)]
    pub fast_gemm: bool,
}

impl Products {
    /// `wanted` with these flags.
    pub fn wanted(&self, wanted: Wanted) -> Wanted {
        Wanted { fast_gemm: self.fast_gemm, ..wanted }
    }
}

/// What becomes of work at which the device fails.
#[derive(Debug, clap::Args)]
pub struct Recovery {
    /// What computes a tensor at which the GPU fails twice [default: nothing, the run ends]
    #[arg(long, value_name = "DEVICE", value_parser = ["cpu"])]
    pub fallback: Option<String>,
}

impl Recovery {
    /// `wanted` with these flags.
    pub fn wanted(&self, wanted: Wanted) -> Wanted {
        Wanted { fallback: self.fallback.is_some(), ..wanted }
    }
}
