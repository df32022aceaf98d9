//! Topics of devices, which profiles and rules write as templates over `{base}` and `{address}`.

/// A topic from its template. One pass, so that an address with a brace in it is not expanded again.
pub fn topic_of(template: &str, base: &str, address: &str) -> String {
    let parts: Vec<String> = template.split("{address}").map(|part| part.replace("{base}", base)).collect();
    parts.join(address)
}

/// Whether `topic` is `parent` or lies below it.
pub fn is_within(parent: &str, topic: &str) -> bool {
    topic.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_filled_in_once_and_lies_within_whole_levels() {
        assert_eq!(topic_of("{base}/{address}/set", "z2m", "a{base}"), "z2m/a{base}/set");
        for (topic, within) in [("z2m/front", true), ("z2m/front/set/state", true), ("z2m/frontier", false)] {
            assert_eq!(is_within("z2m/front", topic), within, "{topic}");
        }
    }
}
