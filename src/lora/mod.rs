//! Low-rank adapters (LoRA, arXiv 2106.09685): ΔW = scale · B·A beside a base that stays as it is.
//!
//! [`config`] reads what PEFT writes down, [`keys`] and [`mod@file`] tell whose factors the tensors are, [`adapter`] holds
//! the pairs. An adapter becomes an expert by a [`layer`] over its base: a checkpoint with the base's tensors, some of
//! them computed as they are read. [`models`] opens all models of a merge. The other way round, [`factor`] takes a merged
//! task vector apart again, and [`target`] says under which names. [`warn`] says what looks
//! like a mistake.

pub mod adapter;
pub mod config;
pub mod factor;
pub mod file;
pub mod keys;
pub mod layer;
pub mod models;
pub mod product;
pub mod target;
pub mod warn;

pub use adapter::{Adapter, Form, Pair};
pub use layer::Layer;
pub use models::{Models, open};
