//! An index of shards.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| magic_fuzz::check(magic_fuzz::checkpoint::index(input)));
