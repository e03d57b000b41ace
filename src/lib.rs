//! Merge fine-tuned checkpoints on any GPU, and put back the magnitudes that merging loses.
//!
//! This is the library behind the program `magic`. What a merge is made of is a [`Recipe`], from YAML or, as on the
//! command line, from a [`Quick`] form. A [`Job`] opens its models and a device ([`Wanted`]), checks and plans everything
//! from headers alone, and then writes the result to an [`Output`], in bounded memory; a [`Report`] says what it did.
//! [`evaluate`] measures a model, [`verify`] checks a finished merge, [`Checkpoint`] reads one model. Everything blocks;
//! [`Progress`] tells another thread how far it has come, and stops it.
//!
//! ```
//! use magic_merge::{Checkpoint, Job, Output, Progress, Quick, Wanted, evaluate};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! // Two classifiers of images that were fine-tuned from one base, each with an output head of its own.
//! let base = Checkpoint::open("assets/demo/base", &[])?;
//! let name = "vit.embeddings.patch_embeddings.projection.weight";
//! println!("{} tensors; {name} is {:?}", base.names().len(), base.shape(name));
//! let first = base.values(name)?[0];
//!
//! // Average them, and put back in weight space what averaging takes from their task vectors.
//! let recipe = Quick::new("linear")
//!     .base("assets/demo/base")
//!     .model("assets/demo/expert_digits")
//!     .model("assets/demo/expert_photo")
//!     .exclude("classifier.*")
//!     .calibrate("wsc")
//!     .recipe()?;
//! let job = Job::new(recipe, None, &Wanted::on("cpu"))?; // `Wanted::default()` takes the best GPU, if there is one
//! let merged = folder.path().join("merged");
//! let report = job.run(&Output::new(&merged), &Progress::default())?;
//! println!("{} bytes a second later: {:?}", base.total_bytes(), report.warnings);
//! assert_ne!(Checkpoint::open(merged.to_str().unwrap(), &[])?.values(name)?[0], first);
//!
//! // How well does the merge do one expert's task, with that expert's head?
//! let (head, data) = ("assets/demo/expert_digits", "assets/demo/samples/digits.test.safetensors");
//! let found = evaluate(merged.to_str().unwrap(), Some(head), data.as_ref(), &Wanted::on("cpu"), &Progress::default())?;
//! println!("{:.1} % right", 100.0 * found.accuracy);
//! # assert!(found.accuracy > 0.5);
//! # Ok(())
//! # }
//! ```
//!
//! A merge that another program made is calibrated by [`Job::given`].
//!
//! The modules are hidden: they are for the program and its tests, are no part of this interface, and may change in any
//! version.

// A merge goes one way. A `recipe` says what is wanted; `job` opens the `checkpoint`s and the `device`; `plan` decides from
// headers alone what happens to every tensor, and `memory` how large its blocks are. Then `merge` takes tensor after
// tensor: `stream` reads its blocks, `methods` and `calibrate` describe the work as a `recording` (a list of calls of
// `kernels`), an `executor` runs the list on the `gpu` or, with the kernels' plain Rust twins, on the `cpu` (`shader` has
// the GPU do many calls in one launch), and the writer of `checkpoint` puts the result in its place. What was done is
// written down by `report`, `card` and `html` (and what it scores by `scores`); `verify` goes the same way again, and compares.
//
// What takes a whole matrix, `decompose` does with `linalg`; `select` finds exact thresholds. A model may be an adapter
// over its base, and so may the result: `lora`.
//
// Calibration in feature space needs the network too: `forward` turns a configuration into a flat list of operations,
// `data` reads samples, `features` runs the list with `parameters` that are loaded leaf by leaf, and `calibrate` measures
// and folds on the way. `evaluate` and `sensitivity` run the same lists. `distribute` lets several machines do parts of one
// merge. `diff` tells how two checkpoints differ, `survey` what experts have learned. `bench` measures all kernels, and checks them.
//
// Clippy sees these modules as the public ones that they are, so that it asks for the docs of what is in them.

#[cfg_attr(not(clippy), doc(hidden))]
pub mod angles;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod bench;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod calibrate;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod card;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod checkpoint;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod cpu;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod data;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod decompose;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod device;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod diff;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod distribute;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod error;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod evaluate;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod executor;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod fast_gemm;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod features;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod figures;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod finite;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod forward;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod gpu;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod html;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod inputs;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod job;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod kept;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod kernel;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod kernels;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod linalg;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod lora;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod memory;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod merge;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod methods;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod parameters;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod part;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod plan;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod progress;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod recipe;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod recording;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod recover;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod report;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod scores;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod select;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod sensitivity;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod shader;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod stack;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod stream;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod survey;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod totals;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod values;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod verify;
#[cfg_attr(not(clippy), doc(hidden))]
pub mod written;

pub use checkpoint::Checkpoint;
pub use device::Wanted;
pub use error::{Error, Kind, Result};
pub use evaluate::{Evaluation, evaluate};
pub use job::{Job, Output};
pub use progress::Progress;
pub use recipe::{Quick, Recipe};
pub use report::Report;
pub use verify::{Verification, verify};
