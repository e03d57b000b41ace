//! Shaders that are built: what a recording launches, with as many calls in one as can stay in registers.
//!
//! Text alone; nothing here knows of a GPU. `program` cuts a recording into launches, `body` writes what the calls of
//! one do, as `site` shows it to their kernels, and `frame` puts the loop over elements or rows around it.

mod body;
mod frame;
mod program;
mod site;

pub use program::{Built, Device, Launch, Run, program};
