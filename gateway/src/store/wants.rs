//! What the uplinks still need of the journal, as their stored cursors say. These are at most a second behind, so that
//! "delivered" is never said too early.

use rusqlite::{Connection, OptionalExtension};

use crate::model::cursor::Cursors;
use crate::model::ids::{Seq, UplinkName};
use crate::model::record::Class;

/// One uplink; no cursors: it was never stored, and will begin with the oldest record.
#[derive(Debug, Clone)]
struct Want {
    uplink: UplinkName,
    cursors: Option<Cursors>,
}

/// The uplinks that are configured. One that was taken out of the configuration needs nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Wants(Vec<Want>);

impl Wants {
    pub(super) fn load(conn: &Connection, uplinks: &[UplinkName]) -> rusqlite::Result<Self> {
        let mut wants = Vec::with_capacity(uplinks.len());
        let mut statement = conn.prepare_cached("SELECT cursors FROM uplink WHERE name = ?1")?;
        for uplink in uplinks {
            let json: Option<String> =
                statement.query_row([uplink.as_str()], |row| row.get(0)).optional()?.flatten();
            // Cursors that cannot be read make the uplink begin anew.
            let cursors = json.and_then(|json| serde_json::from_str(&json).ok());
            wants.push(Want { uplink: uplink.clone(), cursors });
        }
        Ok(Self(wants))
    }

    pub(super) fn uplinks(&self) -> impl Iterator<Item = &UplinkName> {
        self.0.iter().map(|want| &want.uplink)
    }

    /// Whether this uplink may still need the record. A class that its cursors do not name is not for it.
    pub(super) fn needs(&self, uplink: &UplinkName, class: Class, seq: Seq) -> bool {
        self.0.iter().any(|want| want.uplink == *uplink && want.needs(class, seq))
    }

    pub(super) fn anyone_needs(&self, class: Class, seq: Seq) -> bool {
        self.0.iter().any(|want| want.needs(class, seq))
    }
}

impl Want {
    fn needs(&self, class: Class, seq: Seq) -> bool {
        let Some(cursors) = &self.cursors else { return true };
        cursors.classes.get(&class).is_some_and(|cursor| {
            seq >= cursor.live_next
                || cursor.aside.contains_key(&seq)
                || cursor.backlog.iter().any(|range| (range.from..=range.to).contains(&seq))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::cursor::{ClassCursor, SeqRange};

    #[test]
    fn only_what_lies_behind_every_cursor_is_not_needed() {
        let uplink = UplinkName::new("city").unwrap();
        let cursor = ClassCursor {
            live_next: 20,
            backlog: vec![SeqRange { from: 5, to: 7 }],
            aside: BTreeMap::from([(10, 1)]),
        };
        let cursors = Cursors { classes: BTreeMap::from([(Class::Event, cursor)]) };
        let wants = Wants(vec![Want { uplink: uplink.clone(), cursors: Some(cursors) }]);
        let needed: Vec<Seq> = (1..=22).filter(|seq| wants.needs(&uplink, Class::Event, *seq)).collect();
        assert_eq!(needed, [5, 6, 7, 10, 20, 21, 22]);
        assert!(!wants.anyone_needs(Class::Telemetry, 22), "its filter does not admit the class");
        let fresh = Wants(vec![Want { uplink, cursors: None }]);
        assert!(fresh.anyone_needs(Class::Telemetry, 1));
        assert!(!Wants::default().anyone_needs(Class::Alarm, 1));
    }
}
