//! The configuration: reads files, collects every mistake with its place, assembles what the parts need.
//!
//! [`load`] opens nothing but the configuration's own files and profiles: no socket, no port, no journal. A text goes
//! through `syntax` (a tree with places, going on after each slip), `schema` (the tree against the types' JSON
//! Schema), `assemble` (each part into its own type) and `whole` (what must fit between parts); each adds its notes,
//! and `report` tells them all at once.

mod assemble;
mod directory;
mod docs;
mod paths;
mod peers;
mod people;
mod profiles;
mod read;
mod report;
mod rules;
mod scalar;
mod schema;
mod source;
mod syntax;
#[cfg(test)]
mod tests;
mod uplinks;
mod whole;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::ids::{
    BusName, CareName, ClientName, DeviceId, GatewayName, NotifierName, ProfileName, RuleName, UplinkName,
};
use crate::model::place::Place;
use crate::north::config::UplinkConfig;
use crate::north::notify::config::WebhookConfig;
use crate::pipeline::alarm::AlarmConfig;
use crate::pipeline::care::Household;
use crate::pipeline::rule::{Rules, Source};
use crate::rt::machine::MachineConfig;
use crate::south::broker::config::{BrokerConfig, ClientConfig};
use crate::south::device::DeviceConfig;
use crate::south::modbus::config::ModbusConfig;
use crate::south::mqtt::config::MqttConfig;
use crate::south::profile::Profile;
use crate::store::budget::StorageConfig;

pub use directory::abilities_of;
pub use docs::markdown;
pub use report::{Also, FINDINGS_MAX, Finding, Report};
pub use source::Position;

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The box itself.
    pub gateway: GatewayConfig,
    /// Buses and listeners towards devices.
    #[serde(default)]
    pub buses: BTreeMap<BusName, BusConfig>,
    /// Accounts at the embedded broker.
    #[serde(default)]
    pub clients: BTreeMap<ClientName, ClientConfig>,
    /// Devices.
    #[serde(default)]
    pub devices: BTreeMap<DeviceId, DeviceConfig>,
    /// Platforms.
    #[serde(default)]
    pub uplinks: BTreeMap<UplinkName, UplinkTable>,
    /// People who are told of alarms without a platform.
    #[serde(default)]
    pub notifiers: BTreeMap<NotifierName, NotifierTable>,
    /// Households of people who live alone (独居老人) and agreed to be looked after.
    #[serde(default)]
    pub care: BTreeMap<CareName, Household>,
}

/// `[gateway]`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// Name of this box, one per box: the third level of every topic.
    pub name: GatewayName,
    /// The compound (小区), as platforms know it: a code or a short name.
    #[schemars(length(min = 1, max = 64))]
    pub compound: String,
    /// Where the box is.
    #[serde(default)]
    pub place: Place,
    /// Minutes that the site's clock is ahead of UTC: 480 in China.
    #[serde(default = "default_utc_offset_min")]
    #[schemars(range(min = -720, max = 840))]
    pub utc_offset_min: i32,
    /// Directory of the journal. A relative path starts at the configuration file.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// Local socket for `gatehouse status`; gatehouse.sock in `data_dir` if not given.
    pub socket: Option<PathBuf>,
    /// Directory of secrets: one file per client of the broker. A relative path starts at the configuration file.
    #[serde(default = "default_secrets_dir")]
    pub secrets_dir: PathBuf,
    /// Directory of further profiles. A relative path starts at the configuration file.
    pub profiles_dir: Option<PathBuf>,
    /// Directory of own rules (docs/rules.md). A file of the name of a shipped one replaces that. A relative path starts at
    /// the configuration file.
    pub rules_dir: Option<PathBuf>,
    /// Rules that are switched off, by name.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub rules_disabled: Vec<RuleName>,
    /// Address of `/metrics` and `/healthz`, loopback only; none if not given.
    #[schemars(with = "Option<String>", extend("format" = "ip-and-port"))]
    pub http: Option<SocketAddr>,
    /// Take the machine's clock for plausible (`rtc`) though it has no battery: for a container or a virtual machine whose
    /// host keeps the time.
    #[serde(default)]
    pub trust_clock: bool,
    /// Room for the journal in `data_dir`, and what is forgotten first. The write-ahead log takes up to 16 MiB beside it.
    #[serde(default)]
    pub storage: StorageConfig,
    /// What is told of the box itself: heat, power, flash, memory.
    #[serde(default)]
    pub machine: MachineConfig,
    /// How many alarms may be open, and how long things take; see docs/alarms.md.
    #[serde(default)]
    pub alarms: AlarmConfig,
}

/// `[buses.NAME.KIND]`: exactly one kind.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BusConfig {
    /// The embedded MQTT broker.
    Broker(BrokerConfig),
    /// An MQTT broker that others run.
    Mqtt(MqttConfig),
    /// Devices that speak Modbus.
    Modbus(ModbusConfig),
}

/// `[uplinks.NAME.KIND]`: exactly one kind.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UplinkTable {
    /// A platform reached by MQTT 5.
    Mqtt(UplinkConfig),
}

/// `[notifiers.NAME.KIND]`: exactly one kind.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NotifierTable {
    /// A robot of a chat group, or any server that takes a POST.
    Webhook(WebhookConfig),
}

/// A configuration without mistakes.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Its paths are absolute.
    pub settings: Settings,
    /// Every profile that devices may name: the shipped ones, and those of `profiles_dir`, which go first.
    pub profiles: BTreeMap<ProfileName, Profile>,
    /// The rules that are at work.
    pub rules: Arc<Rules>,
    /// The files that they come from.
    rule_sources: Vec<Source>,
    /// Where relative paths start.
    pub base_dir: PathBuf,
    /// What was read: a file, or a directory.
    pub path: PathBuf,
    /// What a person should know all the same.
    pub warnings: Report,
}

/// Reads a configuration: one file, or all `*.toml` files of a directory.
///
/// # Errors
/// A report of everything that is wrong, or of what could not be read.
pub fn load(path: &Path) -> Result<Loaded, Report> {
    let mut texts = read::Texts::default();
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let base_dir = if path.is_dir() {
        match read::listing(path) {
            Ok(files) if files.is_empty() => {
                texts.unreadable.push(format!("there is no *.toml file in {}", path.display()));
            }
            Ok(files) => {
                for file in files {
                    texts.read(&file);
                }
            }
            Err(reason) => texts.unreadable.push(reason),
        }
        absolute
    } else if matches!(path.try_exists(), Ok(false)) {
        let shown = path.display();
        texts.unreadable.push(format!("there is no {shown}; name the configuration with --config PATH"));
        absolute
    } else {
        texts.read(path);
        absolute.parent().map_or_else(PathBuf::new, Path::to_owned)
    };
    if !texts.unreadable.is_empty() {
        return Err(Report::new(texts.notes, &texts.sources, texts.unreadable));
    }
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    examine(texts, &base_dir, true).map(|loaded| Loaded { path, ..loaded })
}

/// Checks the bytes of one configuration file without touching any file: for tests and fuzzing.
pub fn check_bytes(name: &str, bytes: &[u8]) -> Report {
    let mut texts = read::Texts::default();
    texts.add(name, bytes.to_owned());
    match examine(texts, Path::new("/nonexistent"), false) {
        Ok(loaded) => loaded.warnings,
        Err(report) => report,
    }
}

/// Everything after reading. `files` says whether files that the configuration names may be looked at.
fn examine(mut texts: read::Texts, base_dir: &Path, files: bool) -> Result<Loaded, Report> {
    let mut notes = std::mem::take(&mut texts.notes);
    let root = texts.joined(&mut notes);
    let schema = schemars::schema_for!(Settings).to_value();
    let mut walk = schema::Walk::new(&schema, &texts.lost);
    walk.document(&root, 0..1);
    notes.append(&mut walk.notes);
    let parts = assemble::Parts::read(&root, &walk, &mut notes);
    let mut described = read::Texts::following(&texts);
    let known = profiles::read(&root, base_dir, files, &mut described, &mut notes);
    let view = whole::View { root: &root, lost: &texts.lost, start: 0 };
    let names = known.names.iter().map(String::as_str).collect();
    notes.extend(whole::references(view, &names));
    notes.extend(whole::limits(view, &parts, &known.profiles));
    let partial = assemble::Parts::partial(&root, &walk);
    let mut ruled = read::Texts::following(&described);
    let devices = directory::directory(&partial.devices, &partial.clients, &partial.buses, &known.profiles);
    let catalogue = directory::catalogue(&known.profiles);
    let field = rules::Field { directory: &devices, catalogue: &catalogue };
    let read = rules::read(&root, base_dir, files, field, &mut ruled, &mut notes);
    let (mut problems, claims) = whole::told(view, &parts, &partial);
    problems.extend(whole::lacking(&partial, &known.profiles));
    problems.extend(whole::fields(&parts, &partial, &known.profiles));
    let names = view.names("devices");
    problems.extend(people::problems((&parts, &partial), &names, &known.profiles, &read.rules));
    notes.extend(assemble::placed(problems, &root, &view.start()));
    notes.extend(whole::claims(view, claims));
    notes.extend(whole::warnings(view, &parts));
    let mut settings = parts.settings();
    if let Some(settings) = &mut settings {
        paths::resolve(settings, base_dir);
        if files {
            notes.extend(assemble::placed(paths::problems(settings), &root, &view.start()));
        }
    }
    let mut sources = texts.sources;
    sources.append(described.sources);
    sources.append(ruled.sources);
    let unreadable = [described.unreadable, ruled.unreadable].concat();
    let report = Report::new(notes, &sources, unreadable);
    match settings {
        Some(settings) if report.clean() => {
            let base_dir = base_dir.to_owned();
            let (path, profiles) = (base_dir.clone(), known.profiles);
            let (rules, rule_sources) = (Arc::new(read.rules), read.sources);
            Ok(Loaded { settings, profiles, rules, rule_sources, base_dir, path, warnings: report })
        }
        _ => Err(report),
    }
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("/var/lib/gatehouse")
}

const fn default_utc_offset_min() -> i32 {
    480
}

fn default_secrets_dir() -> PathBuf {
    PathBuf::from("secrets")
}

impl GatewayConfig {
    /// The local socket: as given, or in the data directory.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.data_dir.join("gatehouse.sock"))
    }
}
