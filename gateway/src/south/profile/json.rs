//! Bytes from a device into JSON: bounded in depth, and tolerant in one thing. Some firmware writes `NaN`, `Infinity`
//! or `1e999` for a broken measurement; strict parsing would throw away the press that stands beside it. So such a
//! number is taken as null and counted, and the rest of the message stands.
//!
//! Of a key that stands twice the last value holds, as JavaScript and Zigbee2MQTT have it.

use std::borrow::Cow;

use serde_json::Value;

use crate::model::json::too_deep;
use crate::model::refusal::Refusal;

/// A parsed message.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::south) struct Document {
    pub(in crate::south) value: Value,
    /// Numbers that were not finite and now are null.
    pub(in crate::south) not_finite: usize,
}

/// Parses one message.
///
/// # Errors
/// [`Refusal::NotUtf8`], [`Refusal::JsonTooDeep`], [`Refusal::NotJson`].
pub(in crate::south) fn parse(payload: &[u8]) -> Result<Document, Refusal> {
    let text = std::str::from_utf8(payload).map_err(|_invalid| Refusal::NotUtf8)?;
    if too_deep(text.as_bytes()) {
        return Err(Refusal::JsonTooDeep);
    }
    let (clean, not_finite) = finite(text.as_bytes());
    let value = serde_json::from_slice(&clean).map_err(|_syntax| Refusal::NotJson)?;
    Ok(Document { value, not_finite })
}

/// Walks once over the bytes and replaces numbers that are not finite; says how many. Everything else is left to the
/// parser, which is strict.
fn finite(bytes: &[u8]) -> (Cow<'_, [u8]>, usize) {
    let mut replaced: Option<Vec<u8>> = None;
    let mut copied = 0;
    let mut not_finite = 0;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let rest = bytes.get(at..).unwrap_or_default();
        let token = match byte {
            b'"' => string_length(rest),
            b'N' | b'I' | b'-' | b'0'..=b'9' => number_length(rest),
            _ => 1,
        };
        let end = at.saturating_add(token);
        if bytes.get(at..end).is_some_and(is_not_finite) {
            let out = replaced.get_or_insert_with(|| Vec::with_capacity(bytes.len()));
            out.extend_from_slice(bytes.get(copied..at).unwrap_or_default());
            out.extend_from_slice(b"null");
            copied = end;
            not_finite += 1;
        }
        at = end;
    }
    match replaced {
        None => (Cow::Borrowed(bytes), 0),
        Some(mut out) => {
            out.extend_from_slice(bytes.get(copied..).unwrap_or_default());
            (Cow::Owned(out), not_finite)
        }
    }
}

/// Length of the string that starts here, quotes included; an unfinished one reaches to the end.
fn string_length(bytes: &[u8]) -> usize {
    let mut escaped = false;
    for (index, byte) in bytes.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index.saturating_add(1),
            _ => {}
        }
    }
    bytes.len()
}

/// Length of the number, `NaN` or `Infinity` that starts here, at least 1.
fn number_length(bytes: &[u8]) -> usize {
    let word = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let sign = bytes.len() - word.len();
    for name in [b"NaN".as_slice(), b"Infinity"] {
        if word.starts_with(name) {
            return sign.saturating_add(name.len());
        }
    }
    let digits = word.iter().take_while(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    sign.saturating_add(digits.count()).max(1)
}

fn is_not_finite(token: &[u8]) -> bool {
    // Short tokens without an exponent are finite whatever they say: most numbers are settled here.
    let first = token.first().copied().unwrap_or_default();
    if !matches!(first, b'N' | b'I' | b'-' | b'0'..=b'9') {
        return false;
    }
    if matches!(token, b"NaN" | b"-NaN" | b"Infinity" | b"-Infinity") {
        return true;
    }
    let number = std::str::from_utf8(token).ok().and_then(|text| text.parse::<f64>().ok());
    number.is_some_and(|number| !number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::limits::JSON_DEPTH_MAX;

    #[test]
    fn numbers_that_are_not_finite_become_null_and_the_rest_stands() {
        let document =
            parse(br#"{"t":NaN,"u":-Infinity,"v":1e999,"w":"NaN \"1e999","x":-1.5e3,"sos":true}"#).unwrap();
        let expected =
            serde_json::json!({"t":null,"u":null,"v":null,"w":"NaN \"1e999","x":-1500.0,"sos":true});
        assert_eq!(document, Document { value: expected, not_finite: 3 });
    }

    #[test]
    fn depth_is_bounded() {
        let nest = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nest(JSON_DEPTH_MAX).as_bytes()).is_ok());
        assert_eq!(parse(nest(JSON_DEPTH_MAX + 1).as_bytes()), Err(Refusal::JsonTooDeep));
        assert_eq!(parse("[".repeat(200_000).as_bytes()), Err(Refusal::JsonTooDeep));
        assert!(
            parse(format!(r#"{{"a":"{}"}}"#, "[".repeat(100)).as_bytes()).is_ok(),
            "brackets in a text count"
        );
    }

    #[test]
    fn what_is_not_json_is_named() {
        for (bytes, reason) in [
            (b"\xff\xfe".as_slice(), Refusal::NotUtf8),
            (b"", Refusal::NotJson),
            (b"{\"a\":tru}", Refusal::NotJson),
            (b"{\"a\":1,}", Refusal::NotJson),
            (b"{\"a\":NaNa}", Refusal::NotJson),
            (b"{\"a\":\"", Refusal::NotJson),
            (b"{} {}", Refusal::NotJson),
        ] {
            assert_eq!(parse(bytes), Err(reason), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn of_a_doubled_key_the_last_value_holds() {
        assert_eq!(parse(br#"{"a":1,"a":2}"#).unwrap().value, serde_json::json!({"a": 2}));
    }
}
