//! The pickle of a PyTorch file.
#![no_main]

libfuzzer_sys::fuzz_target!(|pickle: &[u8]| magic_fuzz::check(magic_fuzz::checkpoint::pickle(pickle)));
