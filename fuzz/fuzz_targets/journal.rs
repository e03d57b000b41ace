//! The journal of a merge that was interrupted.
#![no_main]

libfuzzer_sys::fuzz_target!(|journal: &[u8]| magic_fuzz::check(magic_fuzz::checkpoint::journal(journal)));
