use super::*;
use crate::north::contract::Issued;
use crate::rt::clock::{Clock, ManualClock};

const EPOCH: Epoch = Epoch(1);

fn command(name: &str, issued: Issued) -> Command {
    Command {
        id: "c1".to_owned(),
        command: name.to_owned(),
        issued,
        lifetime_s: 60,
        operator: "li".to_owned(),
        reason: "hole".to_owned(),
        args: json!({}),
        signature: None,
    }
}

#[test]
fn a_command_is_taken_in_time_or_answered() {
    let now = ManualClock::new().now();
    let wall = |by_ms: i64| Issued::Wall { ms: now.wall_ms + by_ms };
    let boxed = |boot: &str, mono_ms| Issued::Box { boot: crate::model::ids::BootId(boot.into()), mono_ms };
    let table = [
        ("replay", wall(-1_000), None),
        ("replay", boxed(&now.boot.0, now.mono_ms), None),
        ("replay", wall(-61_000), Some(Outcome::Expired)),
        ("replay", boxed("another", 5), Some(Outcome::Expired)),
        ("replay", wall(3_600_000), Some(Outcome::Rejected)),
        ("door.open_all", wall(0), Some(Outcome::Rejected)),
        // Not allowed to this platform.
        ("door.reset", wall(0), Some(Outcome::Rejected)),
        ("door.open", wall(-1_000), None),
        ("door.open", wall(1_000), None),
        ("door.open", wall(-61_000), Some(Outcome::Expired)),
        ("alarm.close", wall(-1_000), Some(Outcome::Rejected)),
    ];
    let authority = authority();
    for (name, issued, refused) in table {
        let text = format!("{name} {issued:?}");
        let mut command = command(name, issued);
        match name {
            "replay" => {
                let epoch = EPOCH.to_string();
                let number = format!("{:016}", 1);
                command.args = json!({ "epoch": epoch, "class": "event", "from": number, "to": number });
            }
            // Whatever it says of itself, a door's command is old after a minute.
            "door.open" => (command.args, command.lifetime_s) = (json!({ "door": "door-1" }), 3_600),
            _ => {}
        }
        let judged = judge(&command, EPOCH, &now, &authority);
        assert_eq!(judged.err().map(|(_, answer)| answer.outcome), refused, "{text}");
    }
}

fn authority() -> Authority {
    let config = toml::from_str("allow = [\"replay\", \"alarm.*\", \"door.open\"]").unwrap();
    Authority::of(&config, &crate::north::config::Filter::default())
}

#[test]
fn a_door_stays_shut_while_nobody_knows_the_time() {
    let clock = ManualClock::new();
    clock.set_trust(crate::model::stamp::ClockTrust::None);
    let now = clock.now();
    let judged = |issued| {
        let command = Command { args: json!({ "door": "door-1" }), ..command("door.open", issued) };
        judge(&command, EPOCH, &now, &authority()).map(|judged| judged.lifetime_ms)
    };
    let (refusal, answer) = judged(Issued::Wall { ms: now.wall_ms }).unwrap_err();
    assert_eq!((refusal, answer.outcome), (Refusal::CommandNotAllowed, Outcome::Rejected));
    let by_box = Issued::Box { boot: now.boot.clone(), mono_ms: now.mono_ms };
    assert_eq!(judged(by_box).unwrap(), 60_000);
    // What people do about alarms is judged by its revision.
    let alarm = Command {
        args: json!({ "alarm": "a-1", "rev": 2 }),
        ..command("alarm.acknowledge", Issued::Wall { ms: now.wall_ms })
    };
    assert!(judge(&alarm, EPOCH, &now, &authority()).is_ok());
}

#[test]
fn a_snapshot_has_pages_and_shows_what_may_be_seen() {
    use crate::model::alarm::{Alarm, AlarmState};
    use crate::model::record::{Category, Draft, Text};
    let (roll, now) = (Roll::default(), ManualClock::new().now());
    for n in 0..120 {
        let draft = Draft::of_gateway(&now, None, ("x.happened", None), [].into(), Text::default());
        let Body::Event(mut raised) = draft.body else { panic!("no event") };
        raised.category = if n % 2 == 0 { Category::Fire } else { Category::Care };
        let alarm = Alarm::new(format!("a-{n:03}"), AlarmState::Unacknowledged, *raised);
        roll.put(Listed { seq: n, test: n == 0, at: now.clone(), alarm });
    }
    let uplink = UplinkName::new("street").unwrap();
    let filter = toml::from_str("categories = [\"fire\"]").unwrap();
    let view = View::with_key(&uplink, &filter, None);
    let command = command("snapshot", Issued::Wall { ms: 0 });
    let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let args = SnapshotArgs { after, max: 50 };
        let data = snapshot(&command, EPOCH, &args, &roll, &view).data.unwrap();
        assert_eq!(data["open"], 60);
        let alarms = data["alarms"].as_array().unwrap();
        assert!(!alarms.is_empty() && alarms.len() <= 50);
        assert!(data.to_string().len() <= PAGE_BYTES_MAX + 256);
        seen.extend(alarms.iter().map(|alarm| alarm["alarm"].as_str().unwrap().to_owned()));
        pages += 1;
        match data["next"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    let expected: Vec<String> = (0..120).step_by(2).map(|n| format!("a-{n:03}")).collect();
    assert_eq!(seen, expected);
    assert!(pages >= 2);
}

#[test]
fn a_repeated_command_gets_the_first_answer() {
    let command = command("replay", Issued::Wall { ms: 0 });
    let mut first = answer(&command, EPOCH, Outcome::Done, "ok", "3 records follow");
    first.data = Some(json!({ "count": 3 }));
    let slot = CommandSlot::Known { outcome: Some(outcome_text(&first)) };
    assert_eq!(remembered(&command, EPOCH, &slot), Some(first));
    let unknown = remembered(&command, EPOCH, &CommandSlot::Known { outcome: None }).unwrap();
    assert_eq!(unknown.outcome, Outcome::Unknown);
    let conflict = remembered(&command, EPOCH, &CommandSlot::Conflict).unwrap();
    assert_eq!(conflict.outcome, Outcome::Rejected);
    assert_eq!(remembered(&command, EPOCH, &CommandSlot::New), None);
}
