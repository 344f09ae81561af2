//! The master key on disk. It seals everything else; whoever has it and the database has everything.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::KeyError;
use crate::ambient::{Rng, random_bytes};
use crate::config::KeySource;
use crate::crypto::digest::{base64url, from_base64url, hmac_sha256, sha256};
use crate::crypto::seal::SealKey;

/// What the master key is called in its directory.
pub const FILE: &str = "master.key";

/// A master key, and where it was read.
pub(super) struct Master {
    pub path: PathBuf,
    key: Zeroizing<[u8; 32]>,
}

impl Master {
    pub fn random(path: PathBuf, rng: &dyn Rng) -> Self {
        Self { path, key: Zeroizing::new(random_bytes(rng)) }
    }

    /// What the key is for.
    pub fn seals(&self) -> (SealKey, SealKey) {
        (SealKey::derive(&self.key, "server-key"), SealKey::derive(&self.key, "signing-key"))
    }

    /// The id of the key and a check value: enough to recognise it, not to learn it.
    pub fn fingerprint(&self) -> String {
        let check = hmac_sha256(&self.key, &[b"keyward master key check"]);
        format!("{}.{}", base64url(&sha256(&check)[..6]), base64url(&check))
    }

    /// Reads the key; on an empty database it is made where it may be and is not there.
    pub fn load(source: &KeySource, is_empty: bool, rng: &dyn Rng) -> Result<Self, KeyError> {
        let path = path(source);
        if let KeySource::Dir(dir) = source
            && !path.exists()
            && is_empty
        {
            let made = create_dir(dir).and_then(|()| write(&path, &Self::random(path.clone(), rng)));
            made.map_err(|error| problem(&path, error.to_string()))?;
        }
        Self::read(path, is_empty)
    }

    /// The key that the database was sealed under: the one in use, or one that stands beside it under its id. The
    /// latter is there when a change of keys was interrupted after the database had changed, or when an older backup
    /// was put back; it is put in place.
    pub fn matching(source: &KeySource, fingerprint: &str) -> Result<Self, KeyError> {
        // Twice: another process may put it in place between our looks at the two files.
        for _ in 0..2 {
            if let Ok(master) = Self::read(path(source), false)
                && master.fingerprint() == fingerprint
            {
                return Ok(master);
            }
            if let KeySource::Dir(dir) = source
                && let Ok(aside) = Self::read(aside(dir, fingerprint), false)
                && aside.fingerprint() == fingerprint
            {
                let path = path(source);
                aside.put_in_place(dir).map_err(|error| problem(&path, error.to_string()))?;
                return Ok(Self { path, ..aside });
            }
        }
        let master = Self::read(path(source), false)?;
        let found = id(&master.fingerprint()).to_owned();
        Err(KeyError::Foreign { expected: id(fingerprint).to_owned(), found, path: master.path })
    }

    /// Reads the key of a file.
    pub fn read(path: PathBuf, is_empty: bool) -> Result<Self, KeyError> {
        let metadata = fs::metadata(&path).map_err(|error| {
            let text = match error.kind() {
                ErrorKind::NotFound if is_empty => "there is no master key here".to_owned(),
                ErrorKind::NotFound => "the master key is missing, but the database was sealed under one; put it \
                                        back from your backup"
                    .to_owned(),
                _ => error.to_string(),
            };
            problem(&path, text)
        })?;
        let mode = metadata.permissions().mode();
        if mode & 0o007 != 0 {
            let text = format!(
                "everybody on this machine can read the master key (mode {:03o}); run `chmod 600` on it",
                mode & 0o777
            );
            return Err(problem(&path, text));
        }
        let text = Zeroizing::new(fs::read_to_string(&path).map_err(|error| problem(&path, error.to_string()))?);
        let bytes = from_base64url(text.trim()).map(Zeroizing::new);
        let key = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
        let key = key.ok_or_else(|| problem(&path, "this is not a master key: 32 bytes in base64url".to_owned()))?;
        Ok(Self { path, key: Zeroizing::new(key) })
    }

    /// Writes the key beside the one in use, under its id.
    pub fn put_aside(&self, dir: &Path) -> std::io::Result<()> {
        write(&aside(dir, &self.fingerprint()), self)
    }

    /// Makes a key that stands aside the one in use, which stands aside from then on. Two processes may do this at
    /// once: whoever comes second finds it done.
    pub fn put_in_place(&self, dir: &Path) -> std::io::Result<()> {
        if let Ok(current) = Self::read(dir.join(FILE), false)
            && current.fingerprint() != self.fingerprint()
        {
            current.put_aside(dir)?;
        }
        match fs::rename(aside(dir, &self.fingerprint()), dir.join(FILE)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => fs::File::open(dir)?.sync_all(),
        }
    }
}

/// The part that names the key and checks nothing.
pub(super) fn id(fingerprint: &str) -> &str {
    fingerprint.split('.').next().unwrap_or_default()
}

/// Where a key stands that is not in use.
pub(super) fn aside(dir: &Path, fingerprint: &str) -> PathBuf {
    dir.join(format!("{FILE}.{}", id(fingerprint)))
}

/// Where a master key is, or will be.
pub fn path(source: &KeySource) -> PathBuf {
    match source {
        KeySource::File(path) => path.clone(),
        KeySource::Dir(dir) => dir.join(FILE),
    }
}

fn problem(path: &Path, problem: String) -> KeyError {
    KeyError::MasterKey { path: path.to_owned(), problem }
}

fn create_dir(dir: &Path) -> std::io::Result<()> {
    if dir.exists() { Ok(()) } else { fs::DirBuilder::new().recursive(true).mode(0o700).create(dir) }
}

/// Writes a key under another name and moves it into place, so that of several processes one wins and none reads half
/// a key. It belongs to whom the key in use belongs to, or its directory: what root does here must not lock the
/// provider out. Only root can give a file away, and who else writes here is the provider.
fn write(path: &Path, master: &Master) -> std::io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let in_use = fs::metadata(dir.join(FILE));
    let mode = in_use.as_ref().map_or(0o600, |file| file.mode() & 0o640 | 0o600);
    let mut file = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o600)).tempfile_in(dir)?;
    let text = Zeroizing::new(base64url(&*master.key));
    writeln!(file, "{}", text.as_str())?;
    if let Ok(owner) = in_use.or_else(|_| fs::metadata(dir)) {
        let _ = fchown(file.as_file(), Some(owner.uid()), Some(owner.gid()));
    }
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => fs::File::open(dir)?.sync_all(),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.error),
    }
}
