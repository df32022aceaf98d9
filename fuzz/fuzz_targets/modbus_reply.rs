//! What comes back on a Modbus line: a reply of the asked shape or a named fault, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatehouse::south::modbus::fuzz_reply(bytes));
