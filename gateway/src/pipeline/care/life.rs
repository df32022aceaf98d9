//! The state of one household and every way in which it changes. Pure: (state, what came, time) → state, and what that
//! means. Time is the pipeline's.
//!
//! | state | what ends it |
//! |---|---|
//! | watching | the window passes: asked, or raised where nobody is to be asked |
//! | asked | any sign: watching; the answer stays away: raised |
//! | raised | any sign: watching, and the alarm's condition is over |
//! | blind (a sensor is silent) | all sensors are heard again; its time does not count |
//! | away | any sign, or it has lasted too long: asked |

use serde::{Deserialize, Serialize};

use super::super::table::Row;

/// Who says that they are leaving is still seen at the door: signs within this do not bring them back.
const SETTLE_MS: u64 = 10 * 60_000;

/// How long things may take, from the configuration.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "the unit stands in each name, as everywhere")]
pub(super) struct Terms {
    pub(super) window_ms: u64,
    /// None: nobody is asked.
    pub(super) answer_ms: Option<u64>,
    /// None: nobody is taken to have left by the door alone.
    pub(super) quiet_ms: Option<u64>,
    pub(super) presumed_max_ms: u64,
    pub(super) said_max_ms: u64,
}

/// A household.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Life {
    /// The last sign, or when watching began; moved by the time that nobody could have seen one.
    pub(super) quiet_since_ms: u64,
    pub(super) stage: Stage,
    presence: Presence,
    /// Since when a sensor is silent.
    pub(super) blind_since_ms: Option<u64>,
    due_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    Watching,
    Asked { since_ms: u64 },
    Raised,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Presence {
    Home,
    /// The door was opened, and nothing was seen since.
    Leaving {
        since_ms: u64,
    },
    Away {
        since_ms: u64,
        said: bool,
    },
}

/// What a change means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    None,
    Ask,
    Raise,
    /// The alarm's condition is over.
    Clear,
}

impl Row for Life {
    fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }
}

impl Life {
    pub(super) const fn begin(t_ms: u64) -> Self {
        Self {
            quiet_since_ms: t_ms,
            stage: Stage::Watching,
            presence: Presence::Home,
            blind_since_ms: None,
            due_ms: None,
        }
    }

    /// A sign of life; `leaves`: by the door of the flat.
    pub(super) fn sign(&mut self, t_ms: u64, leaves: bool, terms: &Terms) -> Step {
        if let Presence::Away { since_ms, said: true } = self.presence
            && t_ms < since_ms.saturating_add(SETTLE_MS)
        {
            return Step::None;
        }
        self.presence = match self.presence {
            // The opening by which somebody comes home is not one by which they leave.
            Presence::Away { .. } => Presence::Home,
            _ if leaves && terms.quiet_ms.is_some() => Presence::Leaving { since_ms: t_ms },
            _ => Presence::Home,
        };
        self.alive(t_ms, terms)
    }

    /// Somebody said that they are leaving.
    pub(super) fn leave(&mut self, t_ms: u64, terms: &Terms) -> Step {
        self.presence = Presence::Away { since_ms: t_ms, said: true };
        self.alive(t_ms, terms)
    }

    /// Somebody said that they are back.
    pub(super) fn back(&mut self, t_ms: u64, terms: &Terms) -> Step {
        self.presence = Presence::Home;
        self.alive(t_ms, terms)
    }

    fn alive(&mut self, t_ms: u64, terms: &Terms) -> Step {
        self.quiet_since_ms = t_ms;
        let step = if self.stage == Stage::Raised { Step::Clear } else { Step::None };
        self.stage = Stage::Watching;
        self.schedule(terms);
        step
    }

    /// A sensor is silent since then: what is not seen means nothing any more. A question that waits is asked anew later.
    pub(super) fn blind(&mut self, since_ms: u64, terms: &Terms) {
        let since_ms = self.blind_since_ms.map_or(since_ms, |known| known.min(since_ms));
        self.blind_since_ms = Some(since_ms);
        if matches!(self.stage, Stage::Asked { .. }) {
            self.stage = Stage::Watching;
        }
        self.schedule(terms);
    }

    /// All sensors are heard again.
    pub(super) fn sighted(&mut self, t_ms: u64, terms: &Terms) {
        let Some(since_ms) = self.blind_since_ms.take() else { return };
        let unseen_ms = t_ms.saturating_sub(since_ms.max(self.quiet_since_ms));
        self.quiet_since_ms = self.quiet_since_ms.saturating_add(unseen_ms);
        // Nobody could have seen whether they stayed inside.
        if let Presence::Leaving { since_ms: opened_ms } = &mut self.presence {
            *opened_ms = opened_ms.saturating_add(t_ms.saturating_sub(since_ms.max(*opened_ms)));
        }
        self.schedule(terms);
    }

    /// The box was off for so long: nothing of that time counts.
    pub(super) fn shift(&mut self, by_ms: u64, terms: &Terms) {
        let later = |t_ms: &mut u64| *t_ms = t_ms.saturating_add(by_ms);
        later(&mut self.quiet_since_ms);
        self.blind_since_ms.iter_mut().for_each(later);
        if let Stage::Asked { since_ms } = &mut self.stage {
            later(since_ms);
        }
        if let Presence::Leaving { since_ms } = &mut self.presence {
            later(since_ms);
        }
        self.schedule(terms);
    }

    /// Its deadline has come.
    pub(super) fn fire(&mut self, t_ms: u64, terms: &Terms) -> Step {
        let step = self.passed(t_ms, terms);
        self.schedule(terms);
        step
    }

    fn passed(&mut self, t_ms: u64, terms: &Terms) -> Step {
        match (self.presence, self.stage) {
            (Presence::Leaving { since_ms }, _) => {
                self.presence = Presence::Away { since_ms, said: false };
                self.stage = Stage::Watching;
                Step::None
            }
            (Presence::Away { .. }, _) => {
                self.presence = Presence::Home;
                self.miss(t_ms, terms)
            }
            (Presence::Home, Stage::Watching) => self.miss(t_ms, terms),
            (Presence::Home, Stage::Asked { .. }) => {
                self.stage = Stage::Raised;
                Step::Raise
            }
            (Presence::Home, Stage::Raised) => Step::None,
        }
    }

    /// There should have been a sign by now.
    const fn miss(&mut self, t_ms: u64, terms: &Terms) -> Step {
        if terms.answer_ms.is_some() {
            self.stage = Stage::Asked { since_ms: t_ms };
            return Step::Ask;
        }
        self.stage = Stage::Raised;
        Step::Raise
    }

    fn schedule(&mut self, terms: &Terms) {
        self.due_ms = match (self.blind_since_ms, self.presence, self.stage) {
            (Some(_), ..) | (None, Presence::Home, Stage::Raised) => None,
            (None, Presence::Leaving { since_ms }, _) => {
                Some(since_ms.saturating_add(terms.quiet_ms.unwrap_or(u64::MAX)))
            }
            (None, Presence::Away { since_ms, said }, _) => {
                let longest_ms = if said { terms.said_max_ms } else { terms.presumed_max_ms };
                Some(since_ms.saturating_add(longest_ms))
            }
            (None, Presence::Home, Stage::Watching) => {
                Some(self.quiet_since_ms.saturating_add(terms.window_ms))
            }
            (None, Presence::Home, Stage::Asked { since_ms }) => {
                Some(since_ms.saturating_add(terms.answer_ms.unwrap_or(0)))
            }
        };
    }

    /// Sets the deadline of a new state, or by a changed configuration.
    pub(super) fn settle(&mut self, terms: &Terms) {
        self.schedule(terms);
    }
}
