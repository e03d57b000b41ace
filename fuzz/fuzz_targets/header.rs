//! The header of a safetensors file. The first two bytes say how much data follows.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Some((data, header)) = input.split_first_chunk::<2>() {
        magic_fuzz::check(magic_fuzz::checkpoint::header(header, u16::from_le_bytes(*data).into()));
    }
});
