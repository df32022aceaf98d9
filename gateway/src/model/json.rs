//! JSON from outside, before a parser sees it. Parsers recurse: nesting is bounded on the bytes, also where they are no
//! JSON at all.

use super::limits::JSON_DEPTH_MAX;

/// Whether brackets outside strings nest deeper than [`JSON_DEPTH_MAX`]. An unfinished string reaches to the end.
pub fn too_deep(bytes: &[u8]) -> bool {
    let mut depth = 0_usize;
    let (mut quoted, mut escaped) = (false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth = depth.saturating_add(1);
                if depth > JSON_DEPTH_MAX {
                    return true;
                }
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_counted_outside_strings() {
        let nest = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(!too_deep(nest(JSON_DEPTH_MAX).as_bytes()));
        assert!(too_deep(nest(JSON_DEPTH_MAX + 1).as_bytes()));
        assert!(too_deep("{\"a\":".repeat(200_000).as_bytes()), "what is never closed counts");
        let inside = "[".repeat(JSON_DEPTH_MAX * 2);
        assert!(!too_deep(format!(r#"{{"a":"{inside}"}}"#).as_bytes()), "brackets in a text count");
        assert!(!too_deep(format!(r#"{{"a":"\"{inside}"}}"#).as_bytes()), "an escaped quote ends the text");
        assert!(
            too_deep(format!(r#"{{"a":"\\",{inside}"#).as_bytes()),
            "an escaped backslash hides the quote"
        );
        assert!(!too_deep("[]".repeat(JSON_DEPTH_MAX * 2).as_bytes()), "neighbours are not nested");
    }
}
