//! The support bundle: what a technician asks for first, in one file on the box, without secrets. Bounded in size and
//! number. What goes in is made by whoever knows it; secrets lie in files of their own, which nobody here reads.

use std::fmt::{self, Write as _};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::model::stamp::Stamp;

/// Largest part of a bundle: the status of 5 000 devices has some 1.5 MB.
const PART_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bundles kept; the oldest goes first.
const BUNDLES_KEPT: usize = 3;

/// Largest summary in an answer.
const SUMMARY_BYTES_MAX: usize = 4 * 1024;

/// Makes one part of the bundle.
pub type Source = Arc<dyn Fn() -> Value + Send + Sync>;

/// Where bundles are put and what they are made of.
#[derive(Clone)]
pub struct Bundle {
    pub dir: PathBuf,
    pub parts: Vec<(&'static str, Source)>,
    /// What an answer says without the file.
    pub summary: Source,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.parts.iter().map(|(name, _)| name).collect();
        out.debug_struct("Bundle").field("dir", &self.dir).field("parts", &parts).finish_non_exhaustive()
    }
}

/// A bundle that was written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Written {
    pub path: PathBuf,
    pub bytes: usize,
    /// SHA-256 of the file in hexadecimal.
    pub sha256: String,
    pub summary: Value,
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
#[error("the support bundle could not be written to {path}; is the disk full?")]
pub struct BundleError {
    path: PathBuf,
    source: io::Error,
}

impl Bundle {
    /// Writes a bundle, and takes the oldest away.
    pub fn write(&self, now: &Stamp) -> Result<Written, BundleError> {
        let mut whole = Map::from_iter([("at".to_owned(), json!(now))]);
        whole.extend(
            self.parts.iter().map(|(name, make)| ((*name).to_owned(), bounded(make(), PART_BYTES_MAX))),
        );
        let text = Value::Object(whole).to_string();
        let digest = Sha256::digest(text.as_bytes());
        let sha256 = hex(&digest);
        let boot: String = now.boot.0.chars().take(8).collect();
        let path = self.dir.join(format!("bundle-{boot}-{:012}.json", now.mono_ms));
        let failed = |source| BundleError { path: path.clone(), source };
        fs::create_dir_all(&self.dir).map_err(failed)?;
        let mut options = fs::OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o640).open(&path).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        if let Err(error) = forget(&self.dir) {
            tracing::warn!(dir = %self.dir.display(), %error, "old support bundles were not removed");
        }
        Ok(Written { path, bytes: text.len(), sha256, summary: bounded((self.summary)(), SUMMARY_BYTES_MAX) })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

fn bounded(part: Value, bytes_max: usize) -> Value {
    let bytes = part.to_string().len();
    if bytes <= bytes_max { part } else { json!({ "left_out_bytes": bytes }) }
}

fn forget(dir: &Path) -> io::Result<()> {
    let mut bundles = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("bundle-") {
            bundles.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    bundles.sort();
    let surplus = bundles.len().saturating_sub(BUNDLES_KEPT);
    bundles.into_iter().take(surplus).try_for_each(|(_, path)| fs::remove_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::BootId;
    use crate::model::stamp::ClockTrust;

    #[test]
    fn bundles_are_bounded_in_size_and_number() {
        let folder = tempfile::tempdir().unwrap();
        let huge: Source = Arc::new(|| Value::String("x".repeat(PART_BYTES_MAX)));
        let bundle = Bundle {
            dir: folder.path().join("bundles"),
            parts: vec![("status", Arc::new(|| json!({ "ill": [] }))), ("huge", huge)],
            summary: Arc::new(|| json!({ "ok": true })),
        };
        let at = |mono_ms| Stamp {
            boot: BootId("0123456789".into()),
            mono_ms,
            wall_ms: 0,
            trust: ClockTrust::None,
        };
        for mono_ms in 0..5 {
            let written = bundle.write(&at(mono_ms)).unwrap();
            let text = fs::read(&written.path).unwrap();
            assert_eq!(text.len(), written.bytes);
            assert_eq!(hex(&Sha256::digest(&text)), written.sha256);
            let whole: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(whole["status"], json!({ "ill": [] }));
            assert!(whole["huge"]["left_out_bytes"].as_u64() > Some(0));
        }
        assert_eq!(fs::read_dir(&bundle.dir).unwrap().count(), BUNDLES_KEPT);
    }
}
