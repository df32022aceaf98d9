//! Rules in numbers, for measuring: what a box with [`crate::model::limits::RULES_MAX`] of them costs a record.

use std::fmt::Write as _;

/// The text of a file with so many rules on the devices of one kind, each on a few of them by place: half on an event,
/// half on values. The first ten of a thousand watch what the first of ten watch.
pub fn many(count: usize) -> String {
    let mut out = String::new();
    for number in 0..count {
        let (building, unit) = (number / 10, number % 10);
        let on = if number.is_multiple_of(2) {
            "on = { event = \"button.pressed\"".to_owned()
        } else {
            "when = \"value < 20.0 && device.kind == 'button'\"\non = { point = \"battery\"".to_owned()
        };
        let written = writeln!(
            out,
            "[[rule]]\nname = \"many-{number}\"\ntitle = {{ zh = \"第{number}条\", en = \"number {number}\" }}\n\
             {on}, place = {{ building = \"{building}\", unit = \"{unit}\" }} }}\n\n[rule.raise]\n\
             name = \"many.happened\"\ncategory = \"device\"\nseverity = \"warning\"\n\
             text = {{ zh = \"第{number}条\", en = \"number {number}\" }}\n"
        );
        if written.is_err() {
            break;
        }
    }
    out
}
