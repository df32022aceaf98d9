//! Topics and filters of devices: what passes as a topic has no wildcard, and a filter that covers another matches
//! all that the other matches.
#![no_main]

use gatehouse::south::topics::{check_topic, covers, is_filter, matches};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut parts = text.splitn(3, '\n');
    let (topic, filter) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let allowed = parts.next().unwrap_or("");
    if check_topic(topic).is_ok() {
        assert!(!topic.contains(['+', '#', '\0']));
    }
    if check_topic(topic).is_ok() && is_filter(filter) && is_filter(allowed) {
        let reached = matches(filter, topic) && covers(allowed, filter);
        assert!(!reached || topic.starts_with('$') || matches(allowed, topic));
    }
});
