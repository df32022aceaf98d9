//! What a platform sends, on each of its topics.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatehouse::north::contract::down::fuzz(bytes));
