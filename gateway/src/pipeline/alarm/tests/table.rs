//! Every state by every input, as docs/alarms.md tells it: the page's tables are what the book does.

use std::fmt::Write;

use super::*;

/// How to get into a state, and what can happen in it.
type Way = fn(&mut Bench, &Raise);
type Input = fn(&mut Bench, &Raise) -> Option<Verdict>;

/// The states that an alarm can be in.
const STATES: [(&str, Way); 12] = [
    ("normal", |_, _| {}),
    ("normal, within the cooldown", |bench, raise| {
        bench.raise(raise);
        bench.obey(AlarmVerb::TakeOutOfService);
        bench.obey(AlarmVerb::Close);
    }),
    ("unacknowledged, holds", |bench, raise| bench.raise(raise)),
    ("unacknowledged, happened", |bench, raise| bench.raise(&Raise { lasts: false, ..raise.clone() })),
    ("unacknowledged, flapping", flap),
    ("returned_unacknowledged", |bench, raise| {
        bench.raise(raise);
        bench.clear(raise);
    }),
    ("acknowledged, holds", |bench, raise| {
        bench.raise(raise);
        bench.obey(AlarmVerb::Acknowledge);
    }),
    ("acknowledged, over, assigned", |bench, raise| {
        bench.raise(raise);
        bench.obey(AlarmVerb::Assign { assignee: "guard-1".to_owned() });
        bench.obey(AlarmVerb::Acknowledge);
        bench.clear(raise);
    }),
    ("shelved, holds", |bench, raise| {
        bench.raise(raise);
        bench.obey(AlarmVerb::Shelve { for_s: 3_600 });
    }),
    ("shelved, over", |bench, raise| {
        bench.raise(raise);
        bench.obey(AlarmVerb::Shelve { for_s: 3_600 });
        bench.clear(raise);
    }),
    ("out_of_service, holds", |bench, raise| {
        bench.raise(raise);
        bench.obey(AlarmVerb::TakeOutOfService);
    }),
    ("out_of_service, over", |bench, raise| {
        bench.raise(raise);
        bench.obey(AlarmVerb::TakeOutOfService);
        bench.clear(raise);
    }),
];

fn flap(bench: &mut Bench, raise: &Raise) {
    for _ in 0..6 {
        bench.raise(raise);
        bench.clear(raise);
    }
    bench.raise(raise);
}

/// What can happen to it.
const INPUTS: [(&str, Input); 12] = [
    ("comes", |bench, raise| {
        bench.pass(10_000);
        bench.raise(raise);
        None
    }),
    ("comes after the cooldown", |bench, raise| {
        bench.pass(COOLDOWN_MS + 10_000);
        bench.raise(raise);
        None
    }),
    ("goes", |bench, raise| {
        bench.clear(raise);
        None
    }),
    ("acknowledge", |bench, _| Some(bench.obey(AlarmVerb::Acknowledge))),
    ("assign", |bench, _| Some(bench.obey(AlarmVerb::Assign { assignee: "guard-2".to_owned() }))),
    ("handle", |bench, _| {
        Some(bench.obey(AlarmVerb::Handle { result: HandlingResult::False, note: String::new() }))
    }),
    ("close", |bench, _| Some(bench.obey(AlarmVerb::Close))),
    ("shelve", |bench, _| Some(bench.obey(AlarmVerb::Shelve { for_s: 600 }))),
    ("unshelve", |bench, _| Some(bench.obey(AlarmVerb::Unshelve))),
    ("take out of service", |bench, _| Some(bench.obey(AlarmVerb::TakeOutOfService))),
    ("return to service", |bench, _| Some(bench.obey(AlarmVerb::ReturnToService))),
    ("time passes", |bench, _| {
        let told = bench.told.len();
        for _ in 0..48 {
            if bench.told.len() > told {
                break;
            }
            bench.pass(HOUR_MS);
        }
        None
    }),
];

fn word(state: AlarmState) -> String {
    serde_json::to_value(state).unwrap().as_str().unwrap().to_owned()
}

/// What the input does in the state, in the page's words.
fn cell(latched: bool, state: usize, input: usize) -> String {
    let mut bench = Bench::new(&AlarmConfig::default());
    let raise = Raise { latched, ..raise("r", "s") };
    STATES[state].1(&mut bench, &raise);
    let before = bench.only();
    let expected = STATES[state].0.split(',').next().unwrap();
    assert_eq!(before.as_ref().map_or("normal".to_owned(), |alarm| word(alarm.state)), expected);
    let told = bench.told.len();
    let missed = bench.rows();
    let verdict = INPUTS[input].1(&mut bench, &raise);
    match verdict {
        Some(Verdict::Already { .. }) => return "already so".to_owned(),
        Some(Verdict::Impossible(_)) => return "refused".to_owned(),
        Some(Verdict::Unknown) => return "no such alarm".to_owned(),
        Some(Verdict::Outdated { .. }) => panic!("no revision was given"),
        Some(Verdict::Done { .. }) | None => {}
    }
    let Some(last) = bench.told.get(told..).and_then(<[Told]>::last) else {
        assert_eq!(verdict, None, "an order was done and not told");
        let noted = bench.rows() != missed && input < 2;
        return if noted { "counted".to_owned() } else { "–".to_owned() };
    };
    if let Some(before) = before.filter(|before| before.alarm == last.alarm.alarm) {
        assert!(last.alarm.rev > before.rev);
    }
    let mut text = word(last.alarm.state);
    if last.alarm.state != AlarmState::Normal && last.alarm.flapping {
        text.push_str(", flapping");
    }
    if last.alarm.rev == 1 {
        text.push_str(", a new alarm");
    }
    text
}

fn page(latched: bool) -> String {
    let mut text = "| in the state | ".to_owned();
    text.push_str(&INPUTS.map(|(name, _)| name).join(" | "));
    text.push_str(" |\n|---");
    text.push_str(&"|---".repeat(INPUTS.len()));
    text.push_str("|\n");
    for (index, (name, _)) in STATES.iter().enumerate() {
        let cells: Vec<String> = (0..INPUTS.len()).map(|input| cell(latched, index, input)).collect();
        writeln!(text, "| **{name}** | {} |", cells.join(" | ")).unwrap();
    }
    text
}

/// Writes the page's tables with `UPDATE_DOCS=1`.
#[test]
fn all_states_by_all_inputs_are_as_the_page_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/alarms.md");
    let mut text = std::fs::read_to_string(path).unwrap();
    for (mark, latched) in [("self-clearing", false), ("latched", true)] {
        let begin = format!("<!-- {mark}: begin -->\n");
        let end = format!("<!-- {mark}: end -->");
        let from = text.find(&begin).expect("the table's mark") + begin.len();
        let to = text.find(&end).expect("the table's end");
        text.replace_range(from..to, &page(latched));
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let stands = std::fs::read_to_string(path).unwrap();
    assert_eq!(stands, text, "docs/alarms.md tells another life; look at it, then UPDATE_DOCS=1");
}
