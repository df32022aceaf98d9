//! From an uplink's configuration to the MQTT client's options: what [`crate::rt::mqtt`] sets, the will, and limits.

use rumqttc::{LastWill, MqttOptions, QoS};

use crate::model::limits::DOWN_PAYLOAD_BYTES_MAX;
use crate::north::config::UplinkConfig;
use crate::north::contract::Outgoing;
use crate::rt::clock::SharedClock;
use crate::rt::mqtt;

use super::LinkError;

/// Packet ids that are kept free beside the window: the client must never come to reuse one that is under way.
const SPARE_PACKET_IDS: u16 = 256;
/// Largest packet taken from a broker: a message from a platform with its topic and properties.
const INCOMING_BYTES_MAX: u32 = 64 * 1024;
const _: () = assert!(INCOMING_BYTES_MAX as usize >= 2 * DOWN_PAYLOAD_BYTES_MAX);
/// Messages from platforms that the broker may send without our PUBACK.
const INCOMING_AT_ONCE: u16 = 32;

/// The options of one connection. `will` is what the broker says when it loses this connection.
pub(super) fn options(
    config: &UplinkConfig,
    client_id: &str,
    will: Outgoing,
    clock: &SharedClock,
) -> Result<MqttOptions, LinkError> {
    let mut options = mqtt::options(&config.peer(), client_id, clock)?;
    options
        .set_clean_start(true)
        .set_max_packet_size(Some(INCOMING_BYTES_MAX))
        .set_receive_maximum(Some(INCOMING_AT_ONCE))
        .set_outgoing_inflight_upper_limit(
            config.pacing.inflight.saturating_mul(5).saturating_add(SPARE_PACKET_IDS),
        )
        .set_max_request_batch(16)
        .set_last_will(LastWill::new(will.topic, will.payload.to_vec(), QoS::AtLeastOnce, will.retain, None));
    Ok(options)
}
