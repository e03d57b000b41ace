//! A merge by several machines: a plan that never changes, pieces of work that anyone may do in any order and more than
//! once, and an end that believes nothing it has not checked.
//!
//! [`Manifest`] is the plan: the recipe, what the inputs were, and which tensors each shard of the output has. [`work`]
//! makes one shard and its receipt; [`measure`] first makes the factors of feature space, where the recipe asks for
//! them. [`finalize`] checks all receipts and shards, hands them to an ordinary merge as what an earlier run has left,
//! and so ends with what one process would have written. No server, no locks, nothing that runs on: engines that
//! people have start the commands, and start them again.

mod factors;
mod finish;
mod manifest;
mod part;
mod sealed;
mod worker;

pub use factors::{Measured, measure};
pub use finish::finalize;
pub use manifest::Manifest;
pub use worker::{Worked, work};
