//! Checkpoints on disk: read them in bounded pieces, write them so that no half of one is ever believed.

pub mod dtype;

pub use dtype::Dtype;
