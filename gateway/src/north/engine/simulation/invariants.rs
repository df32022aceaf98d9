//! What must hold, whatever happened.

use std::collections::BTreeMap;

use super::World;
use crate::model::ids::Seq;
use crate::model::record::Class;
use crate::north::engine::Wording;

impl World {
    /// Every record that the platform may see, with whether it can be sent at all.
    fn visible(&self) -> Vec<(Class, Seq)> {
        let mut visible = Vec::new();
        for (class, records) in &self.journal.records {
            for (seq, record) in records {
                if self.journal.unreadable.contains(&(*class, *seq)) || self.wording.sees(record) {
                    visible.push((*class, *seq));
                }
            }
        }
        visible
    }

    /// The invariant, with what a restart would find.
    pub(super) fn check_nothing_lost(&self) {
        let cursors = &self.journal.stored.classes;
        let covered: Vec<_> = self.journal.gaps().collect();
        for (class, seq) in self.visible() {
            let pending = cursors.get(&class).is_none_or(|cursor| {
                seq >= cursor.live_next
                    || cursor.aside.contains_key(&seq)
                    || cursor.backlog.iter().any(|range| (range.from..=range.to).contains(&seq))
            });
            let gap = covered.iter().any(|gap| gap.class == class && (gap.from..=gap.to).contains(&seq));
            let delivered = self.platform.kept.contains_key(&(class, seq));
            assert!(
                delivered || pending || gap,
                "{class:?} {seq} is neither delivered nor pending nor covered, seed {}, cursor {:?}",
                self.seed,
                cursors.get(&class)
            );
        }
    }

    /// With `previous` alone the platform can prove that it has no hole.
    pub(super) fn check_chain(&self) {
        let visible = self.visible();
        let mut before: BTreeMap<Class, (Seq, u64)> = BTreeMap::new();
        for (class, seq) in visible {
            let epoch = self.journal.records[&class][&seq].epoch.0;
            let expected = before.get(&class).filter(|(_, known)| *known == epoch).map_or(0, |(seq, _)| *seq);
            before.insert(class, (seq, epoch));
            let Some(kept) = self.platform.kept.get(&(class, seq)) else { continue };
            let hole = kept.previous != expected;
            let explained = (kept.previous + 1..seq)
                .any(|number| self.journal.forgotten.contains(&(class, number)))
                || self.journal.forgotten.contains(&(class, kept.previous));
            assert!(
                !hole || explained,
                "{class:?} {seq} says previous {}, was {expected}, hide {}, unreadable {:?}, seed {}",
                kept.previous,
                self.wording.hide,
                self.journal.unreadable.range((class, seq - 3)..(class, seq)).collect::<Vec<_>>(),
                self.seed
            );
        }
    }

    pub(super) fn check_delivered(&self) {
        let gaps: Vec<_> = self.journal.gaps().collect();
        for (class, seq) in self.visible() {
            let delivered = self.platform.kept.contains_key(&(class, seq));
            let gap = gaps.iter().any(|gap| gap.class == class && (gap.from..=gap.to).contains(&seq));
            assert!(delivered || gap, "{class:?} {seq} never arrived, seed {}", self.seed);
        }
    }
}
