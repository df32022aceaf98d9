//! The rules that come with Gatehouse.

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../../../config/rules/", $name, ".toml")))),*]
    };
}

/// File name without its ending, and TOML text. A file of the same name in `rules_dir` replaces one.
pub const fn shipped() -> &'static [(&'static str, &'static str)] {
    SHIPPED
}

const SHIPPED: &[(&str, &str)] = shipped!["access", "box", "device", "emergency", "fall", "fire", "water"];
