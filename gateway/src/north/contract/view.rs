//! What one uplink may see (数据共享清单): which records, which fields of a place, and households and cards as keyed
//! pseudonyms (假名化) where asked.
//!
//! A pseudonym is `p-` and the first 16 bytes of HMAC-SHA-256 in hexadecimal: the same household always has the same
//! one, nobody without the key can go back, and two platforms with two keys cannot compare.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::wire;
use crate::model::action::is_question_of_care;
use crate::model::alarm::{Change, Handling};
use crate::model::audit;
use crate::model::command::{Origin, is_tick};
use crate::model::ids::{DeviceId, UplinkName};
use crate::model::place::Place;
use crate::model::record::{Body, Category, Class, DeviceRef, Record, Value};
use crate::north::config::{Filter, PlaceField};

/// Shortest secret that makes pseudonyms: 128 bits.
pub const PSEUDONYM_KEY_BYTES_MIN: usize = 16;

/// Longest one, so that a wrong path does not read a disk.
pub const PSEUDONYM_KEY_BYTES_MAX: u64 = 4_096;

/// Parameters of events that name a household or a person's card. `care` is the name of a household's section, mostly its
/// number.
const PERSONAL_PARAMS: [&str; 3] = ["card", "care", "household"];

/// Source of the changes that a rule makes: nobody's words.
const RULE_SOURCE: &str = "rule";

/// Why a view cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    #[error("the pseudonym key {path} cannot be read; give the daemon the right to read it")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error(
        "the pseudonym key {path} has {bytes} bytes; write {PSEUDONYM_KEY_BYTES_MIN} to {PSEUDONYM_KEY_BYTES_MAX} random ones"
    )]
    KeyLength { path: PathBuf, bytes: u64 },
}

/// What is known of households under care, and stays in the box.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Private {
    /// Their sensors, whose everyday talk goes only to uplinks that may know it.
    pub devices: BTreeSet<DeviceId>,
    /// Events by which somebody says that they are leaving or back: they go to nobody, however grave.
    pub away: BTreeMap<DeviceId, BTreeSet<String>>,
}

/// What this uplink may see.
#[derive(Clone)]
pub struct View {
    uplink: UplinkName,
    classes: Option<BTreeSet<Class>>,
    categories: Option<BTreeSet<Category>>,
    buildings: Option<BTreeSet<String>>,
    hide: BTreeSet<PlaceField>,
    pseudonyms: Option<Hmac<Sha256>>,
    private: Arc<Private>,
    /// Whether it may know the everyday talk of households under care.
    care_signals: bool,
}

impl fmt::Debug for View {
    /// The key stays out of logs.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("View")
            .field("uplink", &self.uplink)
            .field("classes", &self.classes)
            .field("categories", &self.categories)
            .field("buildings", &self.buildings)
            .field("hide", &self.hide)
            .field("pseudonyms", &self.pseudonyms.is_some())
            .field("private", &self.private.devices.len())
            .field("care_signals", &self.care_signals)
            .finish()
    }
}

fn set<T: Ord + Clone>(list: Option<&Vec<T>>) -> Option<BTreeSet<T>> {
    list.map(|items| items.iter().cloned().collect())
}

impl View {
    /// A view of everything.
    pub fn open(uplink: &UplinkName) -> Self {
        Self {
            uplink: uplink.clone(),
            classes: None,
            categories: None,
            buildings: None,
            hide: BTreeSet::new(),
            pseudonyms: None,
            private: Arc::default(),
            care_signals: false,
        }
    }

    /// The view that `filter` gives `uplink`; reads the pseudonym key. White space at the key's end is not part of it.
    pub fn load(uplink: &UplinkName, filter: &Filter) -> Result<Self, ViewError> {
        let key = match &filter.pseudonym_key_file {
            None => None,
            Some(path) => {
                let unreadable = |source| ViewError::Unreadable { path: path.clone(), source };
                let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
                if bytes > PSEUDONYM_KEY_BYTES_MAX {
                    return Err(ViewError::KeyLength { path: path.clone(), bytes });
                }
                let text = std::fs::read(path).map_err(unreadable)?;
                let key = text.trim_ascii_end();
                if key.len() < PSEUDONYM_KEY_BYTES_MIN {
                    return Err(ViewError::KeyLength { path: path.clone(), bytes: key.len() as u64 });
                }
                Some(key.to_vec())
            }
        };
        Ok(Self::with_key(uplink, filter, key.as_deref()))
    }

    /// The same with the key at hand; [`Filter::pseudonym_key_file`] is not read.
    pub fn with_key(uplink: &UplinkName, filter: &Filter, key: Option<&[u8]>) -> Self {
        Self {
            uplink: uplink.clone(),
            classes: set(filter.classes.as_ref()),
            categories: set(filter.categories.as_ref()),
            buildings: set(filter.buildings.as_ref()),
            hide: filter.hide.iter().copied().collect(),
            // HMAC takes keys of any length, so that this is never none for a given key.
            pseudonyms: key.and_then(|key| Hmac::<Sha256>::new_from_slice(key).ok()),
            private: Arc::default(),
            care_signals: filter.care_signals,
        }
    }

    /// The same without what is seen in these households, as far as the filter does not ask for it.
    #[must_use]
    pub fn keeping_private(mut self, private: Arc<Private>) -> Self {
        self.private = private;
        self
    }

    /// Whether it stays in the box: that somebody is away or back, values of sensors of care, their events that call for
    /// nobody, and questions to their households. Alarms, and what is grave, go like those of any other device.
    fn is_private(&self, body: &Body) -> bool {
        let Private { devices, away } = &*self.private;
        let kept = !self.care_signals;
        let of_care = |device: &DeviceRef| kept && devices.contains(&device.id) && !device.is_gateway();
        match body {
            Body::Telemetry(telemetry) => of_care(&telemetry.device),
            Body::Event(event) => {
                let presence = away.get(&event.device.id).is_some_and(|names| names.contains(&event.name));
                let everyday = event.severity.is_none() && of_care(&event.device);
                presence || everyday || (kept && !devices.is_empty() && is_question_of_care(event))
            }
            Body::Alarm(_) | Body::Gap(_) => false,
        }
    }

    /// Whether this uplink gets the record. Records under test follow the same rules.
    ///
    /// A gap record goes to the uplink it concerns, if the class of what is missing is visible: also where events are
    /// not, since otherwise the hole could not be told from a loss. Ticks, which the gateway says to itself, go to nobody.
    pub fn sees(&self, record: &Record) -> bool {
        !is_tick(record) && self.sees_body(&record.body)
    }

    /// The same for a body that is not numbered.
    pub fn sees_body(&self, body: &Body) -> bool {
        match body {
            Body::Gap(gap) => {
                gap.uplink.as_ref().is_none_or(|uplink| *uplink == self.uplink) && self.sees_class(gap.class)
            }
            // What a platform ordered, and why, is for no other; for itself wherever it was ordered.
            Body::Event(event) if audit::is_private(event) => {
                audit::is_of(event, &self.uplink) && self.sees_class(body.class())
            }
            Body::Alarm(_) | Body::Event(_) | Body::Telemetry(_) => {
                let category = body.category().is_none_or(|category| self.sees_category(category));
                self.sees_class(body.class())
                    && !self.is_private(body)
                    && category
                    && body.place().is_none_or(|place| self.sees_place(place))
            }
        }
    }

    /// Whether records of this class may go to this uplink at all.
    pub fn sees_class(&self, class: Class) -> bool {
        self.classes.as_ref().is_none_or(|classes| classes.contains(&class))
    }

    /// Whether messages numbered in this class may come: gap records are numbered as events whatever they are about.
    pub fn carries(&self, class: Class) -> bool {
        class == Class::Event || self.sees_class(class)
    }

    fn sees_category(&self, category: Category) -> bool {
        self.categories.as_ref().is_none_or(|categories| categories.contains(&category))
    }

    fn sees_place(&self, place: &Place) -> bool {
        let Some(buildings) = &self.buildings else { return true };
        place.building.as_ref().is_some_and(|building| buildings.contains(building))
    }

    /// The place as this uplink may see it.
    pub(super) fn place(&self, place: &Place, compound: &str) -> wire::Place {
        let shown = |field: PlaceField, text: &Option<String>| {
            if self.hide.contains(&field) { None } else { text.clone() }
        };
        let household = place.household.as_ref().map(|household| self.household(household, place, compound));
        wire::Place {
            code: shown(PlaceField::Code, &place.code),
            grid: shown(PlaceField::Grid, &place.grid),
            building: shown(PlaceField::Building, &place.building),
            unit: shown(PlaceField::Unit, &place.unit),
            floor: if self.hide.contains(&PlaceField::Floor) { None } else { place.floor },
            household: shown(PlaceField::Household, &household),
        }
    }

    /// The parameters as this uplink may see them.
    pub(super) fn params(
        &self,
        params: &BTreeMap<String, Value>,
        place: &Place,
        compound: &str,
    ) -> BTreeMap<String, Value> {
        let mut params = params.clone();
        for name in PERSONAL_PARAMS {
            let Some(value) = params.get_mut(name) else { continue };
            let household = name != "card";
            if household && self.hide.contains(&PlaceField::Household) {
                params.remove(name);
                continue;
            }
            if self.pseudonyms.is_none() {
                continue;
            }
            let plain = match value {
                Value::Text(text) => text.to_string(),
                Value::Int(number) => number.to_string(),
                Value::Float(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
            };
            let hidden = if household {
                self.household(&plain, place, compound)
            } else {
                self.pseudonym(&[name, &plain]).unwrap_or_default()
            };
            *value = Value::Text(hidden.into());
        }
        params
    }

    /// Whether people's own words are kept from this uplink: free text may name whom the view hides.
    fn hides_people(&self) -> bool {
        self.pseudonyms.is_some() || self.hide.contains(&PlaceField::Household)
    }

    /// What people do about an alarm, as this uplink may see it; none: nothing yet.
    pub(super) fn handling(&self, handling: &Handling) -> Option<wire::Handling> {
        let words = |text: &Option<String>| text.clone().filter(|_| !self.hides_people());
        (!handling.is_none()).then(|| wire::Handling {
            stage: wire::Open::Known(handling.stage),
            assignee: words(&handling.assignee),
            result: handling.result.map(wire::Open::Known),
            note: words(&handling.note),
        })
    }

    /// What made a revision, as this uplink may see it: its own orders with all their words.
    pub(super) fn change(&self, change: &Change) -> wire::Change {
        let own =
            change.source == Origin::Platform(self.uplink.clone()).text() || change.source == RULE_SOURCE;
        let shown = |text: Option<&String>| text.filter(|_| own || !self.hides_people()).cloned();
        wire::Change {
            what: wire::Open::Known(change.what),
            actor: shown(Some(&change.actor)),
            source: change.source.clone(),
            command: shown(change.command.as_ref()),
            reason: shown(change.reason.as_ref()),
        }
    }

    /// The household's number alone repeats in every building and could be guessed by counting, so the building and
    /// the unit are part of what is hashed. Grid and floor are not: some devices of a household lack them.
    fn household(&self, household: &str, place: &Place, compound: &str) -> String {
        let building = place.building.as_deref().unwrap_or_default();
        let unit = place.unit.as_deref().unwrap_or_default();
        self.pseudonym(&["household", compound, building, unit, household])
            .unwrap_or_else(|| household.to_owned())
    }

    fn pseudonym(&self, parts: &[&str]) -> Option<String> {
        let mut mac = self.pseudonyms.clone()?;
        for part in parts {
            // The length before each part keeps ("1", "12") and ("11", "2") apart.
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        let digest = mac.finalize().into_bytes();
        let first = digest.first_chunk::<16>().map_or(0, |bytes| u128::from_be_bytes(*bytes));
        Some(format!("p-{first:032x}"))
    }

    /// What `up/state` says of this view.
    pub(super) fn shared(&self) -> wire::Shared {
        let classes = self.classes.as_ref().map(|set| set.iter().copied().map(wire::Open::Known).collect());
        let categories =
            self.categories.as_ref().map(|set| set.iter().copied().map(wire::Open::Known).collect());
        wire::Shared {
            classes,
            categories,
            buildings: self.buildings.as_ref().map(|set| u32::try_from(set.len()).unwrap_or(u32::MAX)),
            hidden: self.hide.iter().map(|field| field_name(*field).to_owned()).collect(),
            pseudonyms: self.pseudonyms.is_some(),
        }
    }
}

const fn field_name(field: PlaceField) -> &'static str {
    match field {
        PlaceField::Code => "code",
        PlaceField::Grid => "grid",
        PlaceField::Building => "building",
        PlaceField::Unit => "unit",
        PlaceField::Floor => "floor",
        PlaceField::Household => "household",
    }
}
