//! Profiles: a device model described as data, config/profiles/NAME.toml.
