//! Properties: whatever a record holds, its message fits, keeps its schema and reads back; whatever bytes come down,
//! they end as a message or a named refusal.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::schema::Kind;
use super::super::*;
use super::fixtures as f;
use crate::model::limits::PLATFORM_PAYLOAD_BYTES_MAX;
use crate::model::record::*;

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        prop::num::f64::NORMAL.prop_map(Value::Float),
        "\\PC{0,80}".prop_map(|text| Value::Text(text.into())),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let params = prop::collection::btree_map("[a-z]{1,12}|card|household", value(), 0..6);
    let household = prop::option::of("\\PC{1,20}");
    (0_usize..8, "[a-z]{1,20}\\.[a-z]{1,20}", params, household, any::<Option<i16>>()).prop_map(
        |(category, name, params, household, floor)| {
            let mut event = f::press();
            event.category = Category::ALL[category];
            event.name = name;
            event.params = params;
            event.place.household = household;
            event.place.floor = floor;
            event
        },
    )
}

fn assert_fits(message: &Outgoing, kind: &str) -> Result<(), TestCaseError> {
    prop_assert!(message.payload.len() <= PLATFORM_PAYLOAD_BYTES_MAX);
    let json: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
    super::docs::assert_valid(Kind::named(kind).unwrap(), &json, kind);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_event_reads_back(event in any_event(), seq in 1..u64::MAX, back in 0..u64::MAX, hidden: bool, late: u32) {
        let view = if hidden { f::pseudonymous() } else { View::open(&f::uplink()) };
        let record = f::record(seq, f::stamp(0), Body::Event(Box::new(event.clone())));
        let (previous, now) = (back % seq, f::stamp(u64::from(late)));
        let message = f::framed(&view, &now, |frame| record_message(&record, previous, true, frame)).unwrap();
        assert_fits(&message, "event")?;
        let read: envelope::Sequenced<wire::Event> = serde_json::from_slice(&message.payload).unwrap();
        prop_assert_eq!((read.sequence.0, read.previous.0, read.id), (seq, previous, record.id()));
        prop_assert_eq!(read.data.category, wire::Open::Known(event.category));
        if !hidden {
            prop_assert_eq!(read.data.params, event.params);
            prop_assert_eq!(read.data.place.household, event.place.household);
        }
    }

    #[test]
    fn batches_carry_every_record_once_and_in_order(
        widths in prop::collection::vec(0_usize..40, 1..60),
        tests in prop::collection::vec(prop::bool::weighted(0.1), 60),
    ) {
        let view = View::open(&f::uplink());
        let mut records = Vec::new();
        for (index, width) in widths.iter().enumerate() {
            let mut record = f::telemetry(10 + index as u64 * 3, index as u64);
            if let Body::Telemetry(telemetry) = &mut record.body {
                let sample = telemetry.samples[0].clone();
                telemetry.samples.extend(std::iter::repeat_n(sample, *width));
            }
            record.test = tests[index];
            records.push(record);
        }
        let mut rest: Vec<&Record> = records.iter().collect();
        let (mut previous, mut carried) = (9_u64, Vec::new());
        while !rest.is_empty() {
            let now = f::stamp(60_000);
            let (message, taken) =
                f::framed(&view, &now, |frame| telemetry_message(&rest, previous, true, frame)).unwrap();
            assert_fits(&message, "telemetry")?;
            let read: envelope::Sequenced<wire::Telemetry> = serde_json::from_slice(&message.payload).unwrap();
            prop_assert!(taken >= 1 && read.data.records.len() == taken);
            prop_assert_eq!(read.previous.0, previous);
            previous = read.sequence.0;
            carried.extend(read.data.records.into_iter().map(|record| record.sequence.0));
            rest.drain(..taken);
        }
        prop_assert_eq!(carried, records.iter().map(|record| record.seq).collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_down_end_as_a_message_or_a_refusal(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        down::fuzz(&bytes);
    }

    #[test]
    fn any_mutation_of_a_command_ends_as_a_message_or_a_refusal(
        name in prop::sample::select(vec!["command", "receipt", "time"]),
        at in any::<prop::sample::Index>(), by in any::<u8>(), cut in any::<prop::sample::Index>(), cutting: bool,
    ) {
        let mut bytes = std::fs::read(super::golden::directory().join(format!("{name}.json"))).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = by;
        if cutting {
            bytes.truncate(cut.index(bytes.len()));
        }
        down::fuzz(&bytes);
    }
}

#[test]
fn the_largest_stored_body_fits_a_message() {
    use crate::model::limits::RECORD_BODY_BYTES_MAX;
    let mut event = f::press();
    event.params = BTreeMap::new();
    let bytes = |event: &Event| serde_json::to_vec(&Body::Event(Box::new(event.clone()))).unwrap().len();
    let room = RECORD_BODY_BYTES_MAX - bytes(&event) - "\"params\":{\"fill\":\"\"},".len();
    event.params.insert("fill".to_owned(), Value::Text("x".repeat(room).into()));
    assert!(bytes(&event) >= RECORD_BODY_BYTES_MAX - 8 && bytes(&event) <= RECORD_BODY_BYTES_MAX);
    let long = "小".repeat(64);
    let (topics, view, now) = (f::topics(), f::pseudonymous(), f::stamp(0));
    let frame =
        Frame { topics: &topics, compound: &long, now: &now, clocks: &Clocks::default(), view: &view };
    let record = f::record(u64::MAX, f::stamp(0), Body::Event(Box::new(event)));
    assert!(record_message(&record, u64::MAX - 1, false, &frame).is_ok());
}
