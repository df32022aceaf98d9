//! What must hold, whatever happened.

use std::collections::BTreeMap;

use super::World;
use super::journal::{Contents, Journal};
use super::platform::Platform;
use crate::model::ids::Seq;
use crate::model::record::{Body, Class, Gap};
use crate::north::engine::Wording;

/// The gap records that are stored, and those that the platform has: delivered, they may be forgotten themselves.
fn gaps(contents: &Contents, platform: &Platform) -> Vec<Gap> {
    let records = contents[&Class::Event].values().filter_map(|row| row.record.as_deref());
    let stored = records.map(|record| record.body.clone());
    let kept = platform.kept.iter().filter(|((class, _), _)| *class == Class::Event);
    let kept = kept.map(|(_, kept)| serde_json::from_str(&kept.body).unwrap());
    let gaps = stored.chain(kept).filter_map(|body| match body {
        Body::Gap(gap) => Some(gap),
        Body::Event(_) | Body::Alarm(_) | Body::Telemetry(_) => None,
    });
    gaps.collect()
}

fn is_covered(gaps: &[Gap], class: Class, seq: Seq) -> bool {
    gaps.iter().any(|gap| gap.class == class && (gap.from..=gap.to).contains(&seq))
}

impl<J: Journal> World<J> {
    /// Every record that the platform may see; one that cannot be read might be for it.
    fn visible(&self, contents: &Contents) -> Vec<(Class, Seq)> {
        let mut visible = Vec::new();
        for (class, rows) in contents {
            for (seq, row) in rows {
                if row.record.as_deref().is_none_or(|record| self.wording.sees(record)) {
                    visible.push((*class, *seq));
                }
            }
        }
        visible
    }

    /// The invariant, with what a restart would find.
    pub(super) fn check_nothing_lost(&mut self) {
        let contents = self.journal.contents();
        let cursors = self.journal.cursors().classes;
        let gaps = gaps(&contents, &self.platform);
        self.check_acknowledged(&contents, &gaps);
        for (class, seq) in self.visible(&contents) {
            let pending = cursors.get(&class).is_none_or(|cursor| {
                seq >= cursor.live_next
                    || cursor.aside.contains_key(&seq)
                    || cursor.backlog.iter().any(|range| (range.from..=range.to).contains(&seq))
            });
            let delivered = self.platform.kept.contains_key(&(class, seq));
            assert!(
                delivered || pending || is_covered(&gaps, class, seq),
                "{class:?} {seq} is neither delivered nor pending nor covered, seed {}, cursor {:?}",
                self.seed,
                cursors.get(&class)
            );
        }
    }

    /// What a device heard to be stored is, or the platform has it, or a gap record says that it has not.
    fn check_acknowledged(&self, contents: &Contents, gaps: &[Gap]) {
        for (&(class, seq), body) in &self.acknowledged {
            match contents[&class].get(&seq).map(|row| row.record.as_deref()) {
                Some(Some(record)) => {
                    assert_eq!(&record.body, body, "{class:?} {seq} is another record, seed {}", self.seed);
                }
                Some(None) => {
                    let spoiled = self.spoiled.contains(&(class, seq));
                    assert!(spoiled, "{class:?} {seq} cannot be read, seed {}", self.seed);
                }
                None => assert!(
                    is_covered(gaps, class, seq)
                        || self.platform.kept.contains_key(&(class, seq))
                        || self.wording.hides(seq),
                    "{class:?} {seq} was acknowledged and is neither stored nor delivered nor covered, seed {}",
                    self.seed
                ),
            }
        }
    }

    /// With `previous` alone the platform can prove that it has no hole.
    pub(super) fn check_chain(&mut self) {
        let contents = self.journal.contents();
        let forgotten = self.journal.forgotten();
        let mut before: BTreeMap<Class, (Seq, u64)> = BTreeMap::new();
        for (class, seq) in self.visible(&contents) {
            let epoch = contents[&class][&seq].epoch.0;
            let expected = before.get(&class).filter(|(_, known)| *known == epoch).map_or(0, |(seq, _)| *seq);
            before.insert(class, (seq, epoch));
            let Some(kept) = self.platform.kept.get(&(class, seq)) else { continue };
            let hole = kept.previous != expected;
            let explained = (kept.previous + 1..seq).any(|number| forgotten.contains(&(class, number)))
                || forgotten.contains(&(class, kept.previous));
            assert!(
                !hole || explained,
                "{class:?} {seq} says previous {}, was {expected}, hide {}, unreadable {:?}, seed {}",
                kept.previous,
                self.wording.hide,
                self.spoiled.range((class, seq.saturating_sub(3))..(class, seq)).collect::<Vec<_>>(),
                self.seed
            );
        }
    }

    pub(super) fn check_delivered(&mut self) {
        let contents = self.journal.contents();
        let gaps = gaps(&contents, &self.platform);
        for (class, seq) in self.visible(&contents) {
            let delivered = self.platform.kept.contains_key(&(class, seq));
            let arrived = delivered || is_covered(&gaps, class, seq);
            assert!(arrived, "{class:?} {seq} never arrived, seed {}", self.seed);
        }
    }
}
