//! A recipe.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &str| magic_fuzz::check(magic_fuzz::recipe(input)));
