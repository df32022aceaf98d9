//! Topics and filters as MQTT has them (4.7), checked by us: rmqtt takes wildcards and NUL in a PUBLISH.

use crate::model::limits::TOPIC_BYTES_MAX;
use crate::model::refusal::Refusal;

/// Whether `topic` may stand in a PUBLISH.
///
/// # Errors
/// [`Refusal::TopicTooLong`], [`Refusal::TopicMalformed`].
pub fn check_topic(topic: &str) -> Result<(), Refusal> {
    if topic.len() > TOPIC_BYTES_MAX {
        return Err(Refusal::TopicTooLong);
    }
    if topic.is_empty() || topic.chars().any(|c| matches!(c, '+' | '#') || c.is_control()) {
        return Err(Refusal::TopicMalformed);
    }
    Ok(())
}

/// Whether devices may live under this topic. A slash at its beginning is a level without a name, as Alibaba's cloud has it.
pub fn is_base(topic: &str) -> bool {
    check_topic(topic).is_ok() && !topic.starts_with('$') && !topic.ends_with('/')
}

/// Whether `topic` lies under `base`, a whole number of levels deeper.
pub fn lies_under(base: &str, topic: &str) -> bool {
    topic.strip_prefix(base).is_some_and(|rest| rest.starts_with('/') && rest.len() > 1)
}

/// Whether `filter` is a topic filter: wildcards fill whole levels, `#` only the last.
pub fn is_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.len() > TOPIC_BYTES_MAX || filter.chars().any(char::is_control) {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let fits = match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            level => !level.contains(['+', '#']),
        };
        if !fits {
            return false;
        }
    }
    true
}

/// Whether a topic matches a filter.
pub fn matches(filter: &str, topic: &str) -> bool {
    // 4.7.2: a filter that begins with a wildcard does not match topics that begin with `$`.
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    covers(filter, topic)
}

/// Whether every topic that `asked` matches is matched by `allowed` too.
pub fn covers(allowed: &str, asked: &str) -> bool {
    let mut asked = asked.split('/');
    for level in allowed.split('/') {
        if level == "#" {
            return true;
        }
        match asked.next() {
            None | Some("#") => return false,
            Some(_) if level == "+" => {}
            Some(other) if other == level => {}
            Some(_) => return false,
        }
    }
    asked.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_topics_are_refused() {
        let long = "x".repeat(TOPIC_BYTES_MAX + 1);
        for (topic, reason) in [
            ("", Refusal::TopicMalformed),
            ("z2m/+", Refusal::TopicMalformed),
            ("z2m/#", Refusal::TopicMalformed),
            ("z2m/a\0b", Refusal::TopicMalformed),
            ("z2m/a\u{7f}", Refusal::TopicMalformed),
            (long.as_str(), Refusal::TopicTooLong),
        ] {
            assert_eq!(check_topic(topic), Err(reason), "{topic:?}");
        }
        assert_eq!(check_topic("z2m/客厅 按钮/a"), Ok(()));
    }

    #[test]
    fn a_base_is_a_whole_level() {
        assert!(lies_under("z2m", "z2m/a"));
        assert!(lies_under("a/b", "a/b/c/d"));
        for topic in ["z2m", "z2m/", "z2mx/a", "other/z2m/a", "/z2m/a"] {
            assert!(!lies_under("z2m", topic), "{topic:?}");
        }
        assert!(lies_under("/sys/pk", "/sys/pk/horn") && !lies_under("/sys/pk", "sys/pk/horn"));
        assert!(covers("/sys/pk/+/thing/#", "/sys/pk/horn/thing/service/SpeechBroadcast"));
        for (base, good) in [
            ("zigbee2mqtt", true),
            ("a/b", true),
            ("/sys/pk", true),
            ("/", false),
            ("a/", false),
            ("a/#", false),
            ("$SYS/a", false),
            ("", false),
        ] {
            assert_eq!(is_base(base), good, "{base:?}");
        }
    }

    #[test]
    fn filters_cover_what_is_narrower() {
        for (allowed, asked, expected) in [
            ("z2m/#", "z2m/#", true),
            ("z2m/#", "z2m", true),
            ("z2m/#", "z2m/+/set", true),
            ("z2m/+/set", "z2m/a/set", true),
            ("z2m/+/set", "z2m/+/set", true),
            ("z2m/+/set", "z2m/#", false),
            ("z2m/+/set", "z2m/+/+", false),
            ("z2m/+/set", "z2m/a/b/set", false),
            ("z2m/a", "z2m/+", false),
            ("z2m/a", "z2m/a/b", false),
            ("z2m/#", "#", false),
            ("z2m/#", "+/a", false),
            ("z2m/#", "$share/g/z2m/a", false),
        ] {
            assert_eq!(covers(allowed, asked), expected, "{allowed} {asked}");
        }
        assert!(!matches("#", "$SYS/broker"));
        assert!(matches("z2m/+/set", "z2m/a/set"));
    }

    #[test]
    fn filters_are_well_formed() {
        for good in ["#", "a/#", "+/a", "a/+/b", "/", "a//b"] {
            assert!(is_filter(good), "{good:?}");
        }
        for bad in ["", "a#", "a/#/b", "a+", "a\0"] {
            assert!(!is_filter(bad), "{bad:?}");
        }
    }
}
