//! What a device sends, through each shipped profile.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatehouse::south::profile::fuzz_map(bytes));
