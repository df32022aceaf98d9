//! Every bound of the system, in one place, with its reason.

/// Longest name in the configuration: fits twice into a topic and into a file name.
pub const NAME_BYTES_MAX: usize = 64;

/// Largest MQTT payload taken from a device (pictures have a bound of their own). Zigbee2MQTT's largest regular
/// message, the bridge's device list, reaches some 200 KiB; a sensor's is under 1 KiB.
pub const DEVICE_PAYLOAD_BYTES_MAX: usize = 256 * 1024;

/// Largest MQTT packet the LAN broker reads at all. Above [`DEVICE_PAYLOAD_BYTES_MAX`] and up to here a message is
/// refused, counted and acknowledged, so that the device does not send it for ever; above it the connection is cut.
pub const DEVICE_PACKET_BYTES_MAX: usize = 1024 * 1024;

/// Longest topic taken from a device. The standard allows 65 535 bytes; nothing real passes 200.
pub const TOPIC_BYTES_MAX: usize = 512;

/// Deepest nesting of JSON from outside. Real payloads stay under 8.
pub const JSON_DEPTH_MAX: usize = 32;

/// Longest text value kept of a device's message.
pub const TEXT_VALUE_BYTES_MAX: usize = 1024;

/// Points, events and samples of one message, so that one message cannot fill a batch.
pub const DRAFTS_PER_MESSAGE_MAX: usize = 64;

/// Largest MQTT payload sent to a platform: public brokers cut at 16 to 128 KiB.
pub const PLATFORM_PAYLOAD_BYTES_MAX: usize = 16 * 1024;

/// Largest body of one stored record: with its envelope it must fit [`PLATFORM_PAYLOAD_BYTES_MAX`].
pub const RECORD_BODY_BYTES_MAX: usize = 12 * 1024;

/// Largest message taken from a platform.
pub const DOWN_PAYLOAD_BYTES_MAX: usize = 16 * 1024;

/// Points of all devices together: the reference compound has about 1 500.
pub const POINTS_MAX: usize = 5_000;

/// Rules.
pub const RULES_MAX: usize = 1_000;

/// Longest text that a speaker is asked to say: half a minute of speech, longer than anybody listens.
pub const DEED_TEXT_CHARS_MAX: usize = 200;

/// Longest pause between tries to switch an output back that was left on; each is told.
pub const REST_PAUSE_MS_MAX: u64 = 300_000;

/// A speaker is never taken to be busy with one order for longer: what it says is not known.
pub const SPEECH_MS_MAX: u64 = 180_000;

/// Longest that a profile may say one character takes, and one clip.
pub const SPEECH_CHAR_MS_MAX: u64 = 2_000;
pub const SPEECH_CLIP_MS_MAX: u64 = 60_000;

/// Actions of one alarm at one time: all speakers and doors of a building. With their records they fit
/// [`FOLD_DRAFTS_MAX`].
pub const ACTIONS_AT_ONCE_MAX: usize = 64;

/// Actions under way in the whole compound. Full: further ones are not asked for, and a record says so.
pub const ACTIONS_PENDING_MAX: usize = 1_024;

/// Largest configuration file or profile: 5 000 devices at some 300 bytes, twice over.
pub const CONFIG_FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// All files of one configuration directory, or of one profile directory, together; the last one may pass it.
pub const CONFIG_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Files of one configuration directory, and profiles of one profile directory.
pub const CONFIG_FILES_MAX: usize = 256;

/// Uplinks: each costs a connection, two cursors a class and a place in the ledger.
pub const UPLINKS_MAX: usize = 8;

/// Appends waiting for the journal's writer. Full: a synced append waits (its device is not acknowledged), a relaxed
/// one is dropped and counted.
pub const JOURNAL_QUEUE_MAX: usize = 4_096;

/// Records in one group commit: bounds the time a single fsync may gather.
pub const COMMIT_RECORDS_MAX: usize = 1_024;

/// How long a relaxed append or a saved cursor waits for company before it is committed, in milliseconds.
pub const JOURNAL_HOLD_MS: u64 = 1_000;

/// Records kept in memory while the disk cannot be written: an hour of a busy compound's events. Full: the oldest
/// telemetry goes first, then the oldest events, then the oldest alarms, counted.
pub const MEMORY_RECORDS_MAX: usize = 4_096;

/// Their bytes, so that large records do not take what the process needs elsewhere.
pub const MEMORY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Messages kept in memory only that a broker remembers to know their repetitions by. Full: the oldest is forgotten, and
/// its repetition is mapped anew.
pub const OWED_MESSAGES_MAX: usize = 4_096;

/// A device repeats what was not acknowledged when it has logged in again; clients wait up to a minute or two. What it
/// says in the same words later than this is something new.
pub const OWED_WINDOW_MS: u64 = 120_000;

/// How deep what a fold gives rise to may give rise to more. Alarms come of events, flood alarms of alarms; a longer
/// chain is a loop in the rules and is cut, counted.
pub const FOLD_DEPTH_MAX: usize = 4;

/// Drafts that one record may give rise to, directly or not: thirty devices behind one bus, several times over.
pub const FOLD_DRAFTS_MAX: usize = 256;

/// Backlog ranges an uplink's cursor remembers; beyond it neighbours are merged, and what lies between them is sent
/// again under the same ids.
pub const BACKLOG_RANGES_MAX: usize = 64;

/// De-duplication keys remembered for one device.
pub const DEDUP_KEYS_PER_DEVICE: usize = 32;

/// Remembered command ids for one uplink: a repeated id is answered with the first answer. More than an uplink may give
/// within the longest life of a command that acts, so that none is done again since its id was forgotten.
pub const COMMAND_IDS_KEPT: usize = 2_048;

/// Commands that one uplink may give in a minute, and at once. A duty officer acknowledges a flood alarm by alarm; a
/// platform in a loop must not wear out the disk.
pub const COMMANDS_PER_MINUTE_MAX: u32 = 120;

/// Longest life of a command that acts on the world, in seconds, whatever it says itself: nobody waits longer before a
/// speaker.
pub const ACTING_LIFETIME_S_MAX: u32 = 600;

/// The same for doors: whoever stood there has gone.
pub const DOOR_LIFETIME_S_MAX: u32 = 60;

/// Boots whose wall time is remembered: two months of a box that is cut from power every day. Older records keep the
/// time they were stamped with.
pub const CLOCK_BOOTS_MAX: usize = 64;

const _: () = assert!(RECORD_BODY_BYTES_MAX + 2_048 <= PLATFORM_PAYLOAD_BYTES_MAX);
const _: () =
    assert!(2 * ACTIONS_AT_ONCE_MAX <= FOLD_DRAFTS_MAX && ACTIONS_AT_ONCE_MAX <= ACTIONS_PENDING_MAX);
const _: () = assert!(DEVICE_PAYLOAD_BYTES_MAX < DEVICE_PACKET_BYTES_MAX);
const _: () = assert!(COMMIT_RECORDS_MAX <= JOURNAL_QUEUE_MAX);
const _: () = assert!(MEMORY_BYTES_MAX >= 4 * DRAFTS_PER_MESSAGE_MAX * RECORD_BODY_BYTES_MAX);
const _: () = assert!(DRAFTS_PER_MESSAGE_MAX <= COMMIT_RECORDS_MAX);
// A minute more than its life: the platform's clock may be ahead.
const _: () =
    assert!(COMMANDS_PER_MINUTE_MAX as usize * (ACTING_LIFETIME_S_MAX as usize / 60 + 2) < COMMAND_IDS_KEPT);
const _: () = assert!(DOOR_LIFETIME_S_MAX <= ACTING_LIFETIME_S_MAX);
