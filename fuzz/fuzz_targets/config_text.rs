//! A configuration file: any bytes end as a report, and the report can be written.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let report = gatehouse::config::check_bytes("fuzz.toml", bytes).to_string();
    assert!(!report.contains('\0'), "a report is for terminals");
});
