//! Secrets of accounts: one file each, `SECRETS_DIR/CLIENT`, readable by its owner only. Its first line is either
//! `sha256:` and the digest of a generated secret of 128 bits, or a PHC string of argon2id for a chosen password.
//! The file is read again when it changes, so that a secret is exchanged without a restart.

use std::fs::{File, Metadata};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use sha2::{Digest, Sha256};

/// Generated secrets: 128 bits cannot be guessed, so a fast digest is enough for them.
const SECRET_BYTES: usize = 16;

/// Largest secret file that is read: a PHC string has some 100 bytes.
const FILE_BYTES_MAX: u64 = 4_096;

/// Shortest password that a person may choose.
pub const PASSWORD_CHARS_MIN: usize = 10;

/// What is wrong with a secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot read the secret {path}: {reason}")]
    Read { path: PathBuf, reason: std::io::Error },
    #[error("cannot write the secret {path}: {reason}")]
    Write { path: PathBuf, reason: std::io::Error },
    #[error("the secret {path} already exists; change it with `gatehouse client passwd`")]
    Exists { path: PathBuf },
    #[error("{path} is no secret; make one with `gatehouse client passwd`")]
    Malformed { path: PathBuf },
    #[error("a password has {PASSWORD_CHARS_MIN} characters or more; leave it out and a better one is made")]
    TooShort,
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    #[error("cannot hash the password: {0}")]
    Hash(String),
}

/// What a password is compared with.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// SHA-256 of a generated secret.
    Digest([u8; 32]),
    /// PHC string of argon2id.
    Argon2(String),
}

// Not derived: secrets, even hashed, do not belong in logs.
impl std::fmt::Debug for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Digest(_) => "Secret(sha256)",
            Self::Argon2(_) => "Secret(argon2id)",
        })
    }
}

impl Secret {
    /// Reads the first line of a secret file.
    pub fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.trim();
        if let Some(hex) = line.strip_prefix("sha256:") {
            return Some(Self::Digest(unhex(hex)?));
        }
        let hash = PasswordHash::new(line).ok()?;
        (hash.algorithm.as_str() == "argon2id").then(|| Self::Argon2(line.to_owned()))
    }

    /// The line of a secret file.
    pub fn to_line(&self) -> String {
        match self {
            Self::Digest(digest) => format!("sha256:{}", hex(digest)),
            Self::Argon2(phc) => phc.clone(),
        }
    }

    /// A new secret of 128 random bits: the text to give to the client, and what is kept of it.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn generate() -> Result<(String, Self), SecretError> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes).map_err(SecretError::Random)?;
        let text = hex(&bytes);
        let digest = Sha256::digest(text.as_bytes()).into();
        Ok((text, Self::Digest(digest)))
    }

    /// Of a password that a person chose. Takes some 20 ms and 19 MiB.
    ///
    /// # Errors
    /// Too short.
    pub fn of_password(password: &str) -> Result<Self, SecretError> {
        if password.chars().count() < PASSWORD_CHARS_MIN {
            return Err(SecretError::TooShort);
        }
        let hash = Argon2::default()
            .hash_password(password.as_bytes())
            .map_err(|error| SecretError::Hash(error.to_string()))?;
        Ok(Self::Argon2(hash.to_string()))
    }

    /// Whether this is the password. Blocks some 20 ms for argon2.
    pub fn verify(&self, password: &[u8]) -> bool {
        match self {
            Self::Digest(digest) => equal(digest, &Sha256::digest(password)),
            Self::Argon2(phc) => PasswordHash::new(phc)
                .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok()),
        }
    }
}

/// A secret's file, and what was last read of it.
#[derive(Debug)]
pub struct SecretFile {
    path: PathBuf,
    last: Mutex<Option<(Version, Arc<Secret>)>>,
}

/// What tells one content of a file from another without reading it: a rename changes the inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    inode: u64,
    size: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Version {
    fn of(meta: &Metadata) -> Self {
        Self { inode: meta.ino(), size: meta.size(), seconds: meta.ctime(), nanoseconds: meta.ctime_nsec() }
    }
}

impl SecretFile {
    pub fn new(path: PathBuf) -> Self {
        Self { path, last: Mutex::new(None) }
    }

    /// The secret as it stands now.
    ///
    /// # Errors
    /// The file cannot be read, or holds no secret.
    pub fn load(&self) -> Result<Arc<Secret>, SecretError> {
        let read = |reason| SecretError::Read { path: self.path.clone(), reason };
        let file = File::open(&self.path).map_err(read)?;
        let meta = file.metadata().map_err(read)?;
        let version = Version::of(&meta);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, secret)) = last.as_ref()
            && *known == version
        {
            return Ok(Arc::clone(secret));
        }
        if meta.mode() & 0o077 != 0 {
            tracing::warn!(path = %self.path.display(), "others can read this secret; chmod 600 it");
        }
        let mut text = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(read)?;
        let malformed = || SecretError::Malformed { path: self.path.clone() };
        let secret = Arc::new(Secret::parse(&text).ok_or_else(malformed)?);
        *last = Some((version, Arc::clone(&secret)));
        Ok(secret)
    }
}

/// Only root can give files away; for others the file is the daemon's already, or the directory is closed to them.
fn belong_to_directory(file: &File, path: &Path) -> std::io::Result<()> {
    let (Some(directory), true) = (path.parent(), rustix::process::geteuid().is_root()) else {
        return Ok(());
    };
    let owner = std::fs::metadata(directory)?;
    std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))
}

/// Writes a secret so that there is never half of one: mode 600, synced, then renamed into place. It belongs to whom the
/// directory belongs to: root makes secrets that the daemon must read.
///
/// # Errors
/// It exists and `replace` is not set, or cannot be written.
pub fn write_secret(path: &Path, secret: &Secret, replace: bool) -> Result<(), SecretError> {
    let failed = |reason| SecretError::Write { path: path.to_owned(), reason };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(failed)?;
    }
    let temporary = path.with_extension("new");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed)?;
    file.write_all(format!("{}\n", secret.to_line()).as_bytes()).map_err(failed)?;
    belong_to_directory(&file, path).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    if replace {
        return std::fs::rename(&temporary, path).map_err(failed);
    }
    // A hard link fails where a rename would replace.
    let linked = std::fs::hard_link(&temporary, path);
    std::fs::remove_file(&temporary).map_err(failed)?;
    linked.map_err(|reason| match reason.kind() {
        std::io::ErrorKind::AlreadyExists => SecretError::Exists { path: path.to_owned() },
        _ => failed(reason),
    })
}

/// Comparison whose time does not depend on where the difference is.
pub(super) fn equal(a: &[u8], b: &[u8]) -> bool {
    let different = a.iter().zip(b).fold(0, |seen, (a, b)| seen | (a ^ b));
    a.len() == b.len() && std::hint::black_box(different) == 0
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_read_back_and_only_the_right_one_fits() {
        let (text, generated) = Secret::generate().unwrap();
        assert_eq!(text.len(), 32);
        let chosen = Secret::of_password("correct horse").unwrap();
        for (secret, right) in [(generated, text.as_str()), (chosen, "correct horse")] {
            let again = Secret::parse(&format!("{}\nrest", secret.to_line())).unwrap();
            assert_eq!(again, secret);
            assert!(again.verify(right.as_bytes()));
            for wrong in ["", "correct hors", "correct horse ", "sha256:"] {
                assert!(!again.verify(wrong.as_bytes()), "{wrong:?} was taken");
            }
            assert!(!format!("{secret:?}").contains(right));
        }
        assert!(matches!(Secret::of_password("short"), Err(SecretError::TooShort)));
        for bad in ["", "plain", "sha256:zz", "$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA"] {
            assert_eq!(Secret::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_secret_belongs_to_whom_its_directory_belongs_to() {
        let directory = tempfile::tempdir().unwrap();
        // Only root can set this stage, and only for root it makes a difference.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(directory.path(), Some(64_999), Some(64_998)).unwrap();
        }
        let owner = std::fs::metadata(directory.path()).unwrap();
        let path = directory.path().join("z2m");
        for replace in [false, true] {
            write_secret(&path, &Secret::generate().unwrap().1, replace).unwrap();
            let file = std::fs::metadata(&path).unwrap();
            assert_eq!((file.uid(), file.gid()), (owner.uid(), owner.gid()));
        }
    }

    #[test]
    fn a_file_is_private_and_read_again_when_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/z2m");
        let (one, first) = Secret::generate().unwrap();
        let (two, second) = Secret::generate().unwrap();
        write_secret(&path, &first, false).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let file = SecretFile::new(path.clone());
        assert!(file.load().unwrap().verify(one.as_bytes()));
        assert!(matches!(write_secret(&path, &second, false), Err(SecretError::Exists { .. })));
        assert!(file.load().unwrap().verify(one.as_bytes()));
        write_secret(&path, &second, true).unwrap();
        assert!(file.load().unwrap().verify(two.as_bytes()));
        std::fs::write(&path, "nonsense").unwrap();
        assert!(matches!(file.load(), Err(SecretError::Malformed { .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(file.load(), Err(SecretError::Read { .. })));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 0, "a file was left behind");
    }
}
