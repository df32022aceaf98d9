//! What a process has used, as Linux counts it in /proc.

use std::fs;

/// USER_HZ: the unit of times in /proc/PID/stat on every Linux that Rust supports.
const TICKS_PER_S: f64 = 100.0;
const KIB: f64 = 1_024.0;

fn read(pid: u32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}"))
        .unwrap_or_else(|error| panic!("the process {pid} cannot be looked at ({file}): {error}"))
}

/// CPU seconds of a process and its ended children, in user and kernel mode.
pub fn cpu_s(pid: u32) -> f64 {
    let stat = read(pid, "stat");
    // The second field is the name in parentheses; utime is the 14th (proc(5)).
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = fields.split_whitespace().skip(11).take(4).map(|field| field.parse().unwrap_or(0)).sum();
    ticks as f64 / TICKS_PER_S
}

/// Resident memory in MB (10^6 bytes would flatter us: these are 2^20).
pub fn rss_mb(pid: u32) -> f64 {
    line(&read(pid, "status"), "VmRSS:") / KIB
}

/// Bytes that the process has sent to the disk: pages it dirtied, whole.
pub fn written_bytes(pid: u32) -> f64 {
    line(&read(pid, "io"), "write_bytes:")
}

fn line(text: &str, name: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(name));
    found.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(f64::NAN)
}

/// Bytes written to the block device that holds `path`, by everyone, the file system's own journal included. None
/// where the device has no counter (tmpfs, overlay).
pub fn device_written_bytes(path: &std::path::Path) -> Option<f64> {
    use std::os::unix::fs::MetadataExt;
    let device = fs::metadata(path).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    // The seventh field counts sectors of 512 bytes (Documentation/block/stat.rst).
    let sectors: f64 = stat.split_whitespace().nth(6)?.parse().ok()?;
    Some(sectors * 512.0)
}

/// Tasks that ran or wanted to in the last minute: what else the machine was doing before a run.
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// The CPU's name and how many of them there are.
pub fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("an unnamed CPU", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} cores, {model}, Linux {}", kernel.trim())
}

/// Time of all cores since the machine came up, as /proc/stat counts it.
#[derive(Debug, Default, Clone, Copy)]
pub struct Cores {
    /// Taken by the host of a virtual machine for others.
    stolen: u64,
    all: u64,
}

impl Cores {
    pub fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap_or_default();
        // user nice system idle iowait irq softirq steal; what guests used is in user already (proc_stat(5)).
        let times = text.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
        let times: Vec<u64> = times.map(|time| time.parse().unwrap_or(0)).collect();
        Self { stolen: times.get(7).copied().unwrap_or(0), all: times.iter().sum() }
    }

    /// The share of the cores' time that the host took since then, 0 to 1.
    pub fn stolen_since(self) -> f64 {
        let now = Self::now();
        (now.stolen - self.stolen) as f64 / (now.all - self.all).max(1) as f64
    }
}
