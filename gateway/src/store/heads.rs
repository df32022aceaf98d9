//! What the journal holds, per class: told to whoever waits for new records.

use std::ops::{Index, IndexMut};

use crate::model::cursor::Head;
use crate::model::ids::{Epoch, Pos, Seq};
use crate::model::record::Class;

/// One thing for each class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct PerClass<T>([T; Class::ALL.len()]);

impl<T> PerClass<T> {
    pub(super) fn from_fn(mut make: impl FnMut(Class) -> T) -> Self {
        Self(Class::ALL.map(&mut make))
    }

    pub(super) fn try_from_fn<E>(mut make: impl FnMut(Class) -> Result<T, E>) -> Result<Self, E> {
        let [a, b, c] = Class::ALL;
        Ok(Self([make(a)?, make(b)?, make(c)?]))
    }
}

impl<T> Index<Class> for PerClass<T> {
    type Output = T;

    fn index(&self, class: Class) -> &T {
        let [alarm, event, telemetry] = &self.0;
        match class {
            Class::Alarm => alarm,
            Class::Event => event,
            Class::Telemetry => telemetry,
        }
    }
}

impl<T> IndexMut<Class> for PerClass<T> {
    fn index_mut(&mut self, class: Class) -> &mut T {
        let [alarm, event, telemetry] = &mut self.0;
        match class {
            Class::Alarm => alarm,
            Class::Event => event,
            Class::Telemetry => telemetry,
        }
    }
}

/// The first and last stored number of each class, the epoch of what comes next, and the last position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    pub(super) epoch: Epoch,
    pub(super) pos: Pos,
    pub(super) first: PerClass<Seq>,
    pub(super) last: PerClass<Seq>,
}

impl Heads {
    /// The head of one class. `first` is `last + 1` when nothing is stored; the epoch is the current one.
    pub fn of(&self, class: Class) -> Head {
        Head { epoch: self.epoch, first: self.first[class], last: self.last[class] }
    }

    /// Of a journal that could not be read: nothing is known to be stored.
    pub(super) fn unknown(epoch: Epoch) -> Self {
        Self { epoch, pos: 0, first: PerClass::from_fn(|_class| 1), last: PerClass::default() }
    }

    /// The current epoch: that of the next record.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The last position given out, 0 if none.
    pub const fn pos(&self) -> Pos {
        self.pos
    }
}
