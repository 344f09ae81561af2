//! Mail as files: one RFC 5322 message each, for development, and for whoever has a delivery of their own.

use std::fmt;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::carrier::Failure;
use super::letter::Letter;

pub struct Files {
    dir: PathBuf,
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dir.display().fmt(f)
    }
}

impl Files {
    pub fn under(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("mail") }
    }

    /// Keeps a letter under a name of its time and its id, so that the same one twice is one file; the path.
    pub async fn keep(&self, letter: Letter) -> Result<String, Failure> {
        let (dir, path) = (self.dir.clone(), self.dir.join(format!("{}.eml", letter.name)));
        let told = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || write(&dir, &path, &letter.message)).await;
        let written = written.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        written.map_err(|error| Failure::ours(format!("{told}: {error}")))?;
        Ok(told)
    }
}

/// Whole or not at all, readable by its owner alone, and still there after a power cut.
fn write(dir: &Path, path: &Path, message: &[u8]) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut builder = tempfile::Builder::new();
    let mut file =
        builder.prefix(".").suffix(".tmp").permissions(fs::Permissions::from_mode(0o600)).tempfile_in(dir)?;
    file.write_all(message)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::letter::Letterhead;

    #[tokio::test]
    async fn a_letter_is_one_private_file_however_often_it_is_kept() {
        let data = tempfile::tempdir().expect("a directory");
        let files = Files::under(data.path());
        let letter = Letterhead::for_tests().letter_for_tests("Id-1");
        let path = files.keep(letter.clone()).await.expect("kept");
        assert_eq!(files.keep(letter.clone()).await.expect("kept"), path);
        assert!(path.ends_with("/mail/20270115T080000Z-Id-1.eml"), "{path}");
        assert_eq!(fs::read(&path).expect("the file"), letter.message);
        assert_eq!(fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600);
        let dir = fs::metadata(data.path().join("mail")).expect("the directory");
        assert_eq!(dir.permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(data.path().join("mail")).expect("the directory").count(), 1, "nothing half-written");
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_written_is_our_own_fault() {
        let data = tempfile::tempdir().expect("a directory");
        fs::write(data.path().join("mail"), "in the way").expect("written");
        let kept = Files::under(data.path()).keep(Letterhead::for_tests().letter_for_tests("a")).await;
        assert_eq!(kept.expect_err("no directory").fault, crate::mail::carrier::Fault::Ours);
    }
}
