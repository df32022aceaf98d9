//! `[buses.NAME.modbus]`: types, mistakes beyond types, and what it claims for itself alone. Opens nothing.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::check::{Claim, Problem, Resource};
use crate::model::ids::BusName;

/// Devices that speak Modbus, on one line or behind one server: exactly one of `tcp`, `rtu_over_tcp`, `serial`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModbusConfig {
    /// A Modbus TCP server, or a gateway with several units behind it: "192.168.1.20:502".
    #[schemars(length(min = 1, max = 256))]
    pub tcp: Option<String>,
    /// A serial server that passes RTU frames on as they are: "192.168.1.21:4001".
    #[schemars(length(min = 1, max = 256))]
    pub rtu_over_tcp: Option<String>,
    /// A serial port of this box, by a name that stays: "/dev/serial/by-id/…". It is looked up again at each attempt.
    #[schemars(length(min = 1, max = 256))]
    pub serial: Option<String>,
    /// Speed of the serial line, 9600 if not given; also of the line behind `rtu_over_tcp`.
    #[schemars(range(min = 300, max = 921_600))]
    pub baud: Option<u32>,
    /// Parity of the serial line; `"none"` if not given.
    pub parity: Option<Parity>,
    /// Stop bits of the serial line; 1 if not given. The standard asks for 2 without parity, most devices do not.
    #[schemars(range(min = 1, max = 2))]
    pub stop_bits: Option<u8>,
    /// How long a unit may take to answer.
    #[serde(default = "default_timeout_ms")]
    #[schemars(range(min = 10, max = 30_000))]
    pub timeout_ms: u32,
    /// Quiet between a reply and the next request, where a device needs more than the standard's 3.5 characters.
    #[serde(default)]
    #[schemars(range(max = 10_000))]
    pub turnaround_ms: u32,
    /// How often devices are read whose profile does not say.
    #[serde(default = "default_poll_ms")]
    #[schemars(range(min = 20, max = 86_400_000))]
    pub poll_ms: u32,
}

/// Parity bit of a serial line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Parity {
    /// No parity bit.
    #[default]
    None,
    /// Even parity: the standard's own choice.
    Even,
    /// Odd parity.
    Odd,
}

/// Where the line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At<'a> {
    Tcp(&'a str),
    RtuOverTcp(&'a str),
    Serial(&'a str),
    /// `check` refuses it.
    Nowhere,
}

impl ModbusConfig {
    pub(super) fn at(&self) -> At<'_> {
        match (&self.tcp, &self.rtu_over_tcp, &self.serial) {
            (Some(address), ..) => At::Tcp(address),
            (_, Some(address), _) => At::RtuOverTcp(address),
            (.., Some(path)) => At::Serial(path),
            _ => At::Nowhere,
        }
    }

    /// The line for a person: `tcp://…`, or the port's path.
    pub fn shown(&self) -> String {
        match self.at() {
            At::Tcp(address) => format!("tcp://{address}"),
            At::RtuOverTcp(address) => format!("rtu+tcp://{address}"),
            At::Serial(path) => format!("{path} {} baud", self.speed()),
            At::Nowhere => String::new(),
        }
    }

    /// Whether units above 247 make sense: on TCP they do.
    pub const fn serial_addresses(&self) -> bool {
        self.tcp.is_none()
    }

    pub(super) fn speed(&self) -> u32 {
        self.baud.unwrap_or(9_600).max(1)
    }

    pub(super) fn line(&self) -> (tokio_serial::Parity, tokio_serial::StopBits) {
        let parity = match self.parity.unwrap_or_default() {
            Parity::None => tokio_serial::Parity::None,
            Parity::Even => tokio_serial::Parity::Even,
            Parity::Odd => tokio_serial::Parity::Odd,
        };
        let stop_bits =
            if self.stop_bits == Some(2) { tokio_serial::StopBits::Two } else { tokio_serial::StopBits::One };
        (parity, stop_bits)
    }

    /// How long one character takes on the serial line: start bit, eight data bits, parity, stop bits.
    pub(super) fn character(&self) -> Duration {
        let parity = u32::from(self.parity.unwrap_or_default() != Parity::None);
        let bits = 9 + parity + u32::from(self.stop_bits.unwrap_or(1));
        Duration::from_secs(bits.into()) / self.speed()
    }

    /// Mistakes beyond types; paths start at `buses.NAME.modbus`.
    pub fn problems(&self, name: &BusName) -> Vec<Problem> {
        let path = ["buses", name.as_str(), "modbus"];
        let at = |key| ["buses", name.as_str(), "modbus", key];
        let mut out = Vec::new();
        let given: Vec<(&str, &str)> =
            [("tcp", &self.tcp), ("rtu_over_tcp", &self.rtu_over_tcp), ("serial", &self.serial)]
                .into_iter()
                .filter_map(|(key, value)| Some((key, value.as_deref()?)))
                .collect();
        match given.as_slice() {
            [] => {
                let problem = Problem::error(&path, "nothing says where the line is");
                out.push(problem.hint("write `tcp`, `rtu_over_tcp` or `serial`"));
            }
            [(key, value)] => out.extend(place(&at(key), key, value)),
            [(first, _), (second, _), ..] => {
                let message = format!("`{first}` and `{second}` exclude each other: a bus is one line");
                out.push(Problem::error(&at(second), message).hint("write two buses"));
            }
        }
        let serial_keys = [
            ("baud", self.baud.is_some() && self.tcp.is_some()),
            ("parity", self.parity.is_some() && self.tcp.is_some()),
            ("stop_bits", self.stop_bits.is_some() && self.tcp.is_some()),
        ];
        for (key, _) in serial_keys.into_iter().filter(|(_, wrong)| *wrong) {
            out.push(Problem::error(&at(key), format!("`{key}` is for serial lines")));
        }
        if self.stop_bits.is_some_and(|bits| !(1..=2).contains(&bits)) {
            out.push(Problem::error(&at("stop_bits"), "1 or 2"));
        }
        out
    }

    /// What it holds alone: the port, or the server.
    pub fn claims(&self, name: &BusName) -> Vec<Claim> {
        let (key, resource) = match self.at() {
            At::Tcp(address) => ("tcp", Resource::Server(address.to_ascii_lowercase())),
            At::RtuOverTcp(address) => ("rtu_over_tcp", Resource::Server(address.to_ascii_lowercase())),
            At::Serial(path) => ("serial", Resource::Line(path.to_owned())),
            At::Nowhere => return Vec::new(),
        };
        let path = ["buses", name.as_str(), "modbus", key].map(str::to_owned).to_vec();
        vec![Claim { path, resource }]
    }
}

/// Mistakes in the address or path itself.
fn place(path: &[&str], key: &str, value: &str) -> Option<Problem> {
    if key != "serial" {
        let Some((host, port)) = value.rsplit_once(':') else { return Some(no_address(path, key, value)) };
        let sound = !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
        let bare = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        if sound && !bare && !value.contains(|c: char| c.is_whitespace() || c == '/') {
            return None;
        }
        return Some(no_address(path, key, value));
    }
    if !value.starts_with('/') {
        let problem = Problem::error(path, format!("{value:?} is no path of a serial port"));
        return Some(problem.hint("write /dev/serial/by-id/…"));
    }
    let numbered = ["/dev/ttyUSB", "/dev/ttyACM"].iter().any(|stem| value.starts_with(stem));
    numbered.then(|| {
        let problem = Problem::warning(path, format!("{value} may be another port after the next start"));
        problem.hint("write its link in /dev/serial/by-id/")
    })
}

fn no_address(path: &[&str], key: &str, value: &str) -> Problem {
    Problem::error(path, format!("`{key}` is no host and port: {value:?}")).hint("write \"192.168.1.20:502\"")
}

const fn default_timeout_ms() -> u32 {
    500
}

const fn default_poll_ms() -> u32 {
    1_000
}
