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
    let boxed =
        |boot: &str, mono_ms| Issued::Box { boot: crate::model::ids::BootId(boot.into()), mono_ms };
    let table = [
        ("replay", wall(-1_000), None),
        ("replay", boxed(&now.boot.0, now.mono_ms), None),
        ("replay", wall(-61_000), Some(Outcome::Expired)),
        ("replay", boxed("another", 5), Some(Outcome::Expired)),
        ("replay", wall(3_600_000), Some(Outcome::Rejected)),
        ("door.open_all", wall(0), Some(Outcome::Rejected)),
    ];
    for (name, issued, refused) in table {
        let text = format!("{name} {issued:?}");
        let judged = judge(&command(name, issued), EPOCH, &now);
        assert_eq!(judged.err().map(|(_, answer)| answer.outcome), refused, "{text}");
    }
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
