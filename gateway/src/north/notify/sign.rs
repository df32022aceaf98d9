//! How robots want to know that it is us: a keyed digest of the time. Wall time is data here: a robot that finds it too
//! far from its own refuses the message, and it is sent again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::Sha256;

fn digest(key: &str, text: &str) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else { return String::new() };
    mac.update(text.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// DingTalk (加签): milliseconds and digest become part of the URL.
pub(super) fn dingtalk(url: &str, secret: &str, wall_ms: i64) -> String {
    let sign = digest(secret, &format!("{wall_ms}\n{secret}"));
    let sign = utf8_percent_encode(&sign, NON_ALPHANUMERIC);
    let join = if url.contains('?') { '&' } else { '?' };
    format!("{url}{join}timestamp={wall_ms}&sign={sign}")
}

/// Feishu (签名校验): seconds and digest become part of the message; the secret is in the key, and the text is empty.
pub(super) fn feishu(secret: &str, wall_ms: i64) -> (String, String) {
    let timestamp = wall_ms.div_euclid(1_000).to_string();
    let sign = digest(&format!("{timestamp}\n{secret}"), "");
    (timestamp, sign)
}
