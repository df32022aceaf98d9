//! The bytes of a connection before rmqtt sees them: frames are cut, counted or passed on, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gatehouse::south::broker::fuzz_frames(bytes));
