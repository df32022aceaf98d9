//! The embedded LAN broker: devices speak MQTT to it, and get their PUBACK when the journal has synced (promise G1).

pub mod config;
