//! Merge fine-tuned checkpoints on any GPU, and put back the magnitudes that merging loses.
//!
//! A merge goes one way. A [`recipe`] says what is wanted; [`job`] opens the [`checkpoint`]s and the [`device`];
//! [`plan`] decides from headers alone what happens to every tensor, and [`memory`] how large its blocks are. Then
//! [`merge`] takes tensor after tensor: [`stream`] reads its blocks, [`methods`] and [`calibrate`] describe the work
//! as a [`recording`] (a list of calls of [`kernels`]), an [`executor`] runs the list on the [`gpu`] or, with the
//! kernels' plain Rust twins, on the [`cpu`] ([`shader`] has the GPU do many calls in one launch), and the writer of [`checkpoint`] puts the result in its place. What was
//! done is written down by [`report`] and [`card`]; [`mod@verify`] goes the same way again, and compares.
//!
//! What takes a whole matrix, [`decompose`] does with [`linalg`]; [`select`] finds exact thresholds.
//!
//! A model may be an adapter over its base, and so may the result: [`lora`].
//!
//! Calibration in feature space needs the network too: [`forward`] turns a configuration into a flat list of operations,
//! [`data`] reads samples, [`features`] runs the list with [`parameters`] that are loaded leaf by leaf, and
//! [`calibrate`] measures and folds on the way. [`evaluate`] and [`sensitivity`] run the same lists.
//!
//! [`mod@diff`] tells how two checkpoints differ, and [`mod@survey`] what experts have learned and where they conflict.
//!
//! [`mod@bench`] measures all kernels, and checks them.
//!
//! ```no_run
//! use magic_merge::device::Wanted;
//! use magic_merge::job::{Job, Output};
//! use magic_merge::progress::Progress;
//! use magic_merge::recipe::Recipe;
//!
//! # fn main() -> magic_merge::Result<()> {
//! let recipe = Recipe::from_yaml(
//!     "{merge_method: linear, base_model: ./base, models: [{model: ./a}, {model: ./b}], calibrate: {space: wsc}}",
//!     "recipe.yml",
//! )?;
//! let job = Job::new(recipe, None, &Wanted::default())?;
//! let output = Output { dir: "merged".into(), shard_size: 5_000_000_000, overwrite: false, resume: false, hash: false };
//! let report = job.run(&output, &Progress::default())?;
//! assert_eq!(report.tensors.len(), job.plan.tensors.len());
//! # Ok(())
//! # }
//! ```

pub mod bench;
pub mod calibrate;
pub mod card;
pub mod checkpoint;
pub mod cpu;
pub mod data;
pub mod decompose;
pub mod device;
pub mod diff;
pub mod error;
pub mod evaluate;
pub mod executor;
pub mod fast_gemm;
pub mod features;
pub mod finite;
pub mod forward;
pub mod gpu;
pub mod inputs;
pub mod job;
pub mod kept;
pub mod kernel;
pub mod kernels;
pub mod linalg;
pub mod lora;
pub mod memory;
pub mod merge;
pub mod methods;
pub mod parameters;
pub mod plan;
pub mod progress;
pub mod recipe;
pub mod recording;
pub mod recover;
pub mod report;
pub mod select;
pub mod sensitivity;
pub mod shader;
pub mod stack;
pub mod stream;
pub mod survey;
pub mod totals;
pub mod verify;

pub use error::{Error, Result};
