//! The readers of untrusted input, each as a function that takes any bytes and must not panic.
//!
//! Modules are those of the product, by path, in the same places, so that `crate::` and `super::` mean in them what they
//! mean there. A new target is a function here, a file in `fuzz_targets/`, seeds in `seeds/` and a `[[bin]]`.
#![allow(dead_code, reason = "the product uses the rest")]

pub mod checkpoint;
#[path = "../../src/error.rs"]
pub mod error;
#[path = "../../src/figures.rs"]
pub mod figures;
#[path = "../../src/recipe/mod.rs"]
pub mod recipe;

pub use error::{Error, Result};

/// A recipe: what is read and written again reads the same.
pub fn recipe(text: &str) -> Result<()> {
    let read = recipe::Recipe::from_yaml(text, "r.yml")?;
    let written = read.to_yaml();
    let again = recipe::Recipe::from_yaml(&written, "r.yml").unwrap_or_else(|e| panic!("{e}\n{written}"));
    assert_eq!(read, again, "{written}");
    Ok(())
}

/// A message must be short and free of what moves a terminal, once it is printed.
pub fn check<T>(done: Result<T>) {
    if let Err(error) = done {
        let all = error.hints().iter().map(String::len).sum::<usize>() + error.to_string().len();
        assert!(all < 10_000, "{all} bytes: {error}");
    }
}
