//! The Python that `tests/run` prepares.

use std::path::{Path, PathBuf};

pub fn python() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../python/bin/python");
    assert!(path.exists(), "{} is missing: run the tests with `tests/run`, or run `tests/python` once", path.display());
    path
}
