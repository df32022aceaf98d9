//! Modbus slaves that are not ours: pymodbus on TCP, on a pseudo-terminal, or RTU frames over TCP; and mbpoll as a second
//! master that says what is really there.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::gateway::root;
use crate::ports;
use crate::process::Process;
use crate::wait::{eventually, eventually_ok};

/// How long Python may take to start on a busy machine.
const START: Duration = Duration::from_secs(30);

/// Where a slave is reached.
#[derive(Debug, Clone)]
pub enum At {
    Tcp(u16),
    RtuOverTcp(u16),
    Serial(PathBuf),
}

impl At {
    pub fn free_tcp() -> Self {
        Self::Tcp(ports::free().port())
    }

    pub fn free_rtu_over_tcp() -> Self {
        Self::RtuOverTcp(ports::free().port())
    }
}

/// One value: unit, table (`d`, `c`, `i`, `h`), address, value.
pub type Cell = (u8, char, u16, u16);

/// A pymodbus slave; killed when dropped.
#[derive(Debug)]
pub struct Slave {
    at: At,
    values: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl Slave {
    /// Starts with these values; units that stand in none of them do not exist.
    pub async fn start(folder: &Path, at: At, cells: &[Cell]) -> Self {
        let values = folder.join("slave-values");
        let mut slave = Self { at, values, log: folder.join("slave.log"), process: None };
        slave.set(cells);
        slave.run().await;
        slave
    }

    /// Starts it again after [`Slave::kill`].
    pub async fn run(&mut self) {
        let python = root().join("tests/.venv/bin/python");
        assert!(python.exists(), "{} is missing: run tests/setup.sh", python.display());
        let mut command = Command::new(python);
        command.arg(root().join("tests/modbus/slave.py")).arg("--values").arg(&self.values);
        match &self.at {
            At::Tcp(port) => command.args(["--tcp", &port.to_string()]),
            At::RtuOverTcp(port) => command.args(["--rtu-over-tcp", &port.to_string()]),
            At::Serial(path) => command.arg("--serial").arg(path),
        };
        self.process = Some(Process::spawn("pymodbus", &mut command, &self.log));
        if let At::Tcp(port) | At::RtuOverTcp(port) = self.at {
            eventually_ok("the slave listens", START, async || {
                tokio::net::TcpStream::connect(("127.0.0.1", port)).await.map(|_open| ())
            })
            .await;
        }
    }

    /// Replaces the file of values at once; the slave takes it over within some milliseconds.
    pub fn set(&self, cells: &[Cell]) {
        let text = cells.iter().fold(String::new(), |mut text, (unit, table, address, value)| {
            writeln!(text, "{unit} {table} {address} {value}").unwrap();
            text
        });
        let new = self.values.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, &self.values).unwrap();
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill(&mut self) {
        self.process.take().expect("the slave runs").kill();
    }
}

/// Two pseudo-terminals tied together by socat; gone when dropped.
#[derive(Debug)]
pub struct Cable {
    _process: Process,
    pub near: PathBuf,
    pub far: PathBuf,
}

impl Cable {
    /// Ties the two ends, each under a name of its own in `folder`; the ports behind them are new each time.
    pub async fn lay(folder: &Path) -> Self {
        let (near, far) = (folder.join("line-near"), folder.join("line-far"));
        for end in [&near, &far] {
            // A link that an earlier cable left behind.
            std::fs::remove_file(end).ok();
        }
        let end = |path: &Path| format!("pty,raw,echo=0,link={}", path.display());
        let mut command = Command::new("socat");
        command.args([end(&near), end(&far)]);
        let process = Process::spawn("socat", &mut command, &folder.join("socat.log"));
        eventually("both ends are there", START, || (near.exists() && far.exists()).then_some(())).await;
        Self { _process: process, near, far }
    }
}

/// What mbpoll reads at a Modbus TCP slave: `count` values of a table (0 coils, 1 discrete inputs, 3 input registers, 4
/// holding registers).
pub fn mbpoll(port: u16, unit: u8, table: u8, address: u16, count: u16) -> Vec<u16> {
    let output = Command::new("mbpoll")
        .args(["-m", "tcp", "-p", &port.to_string(), "-a", &unit.to_string(), "-0", "-1"])
        .args(["-t", &table.to_string(), "-r", &address.to_string(), "-c", &count.to_string(), "127.0.0.1"])
        .output()
        .expect("mbpoll runs; tests/setup.sh installs it");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let lines = text.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]:"));
    lines.map(|(_, value)| value.trim().parse().unwrap()).collect()
}
