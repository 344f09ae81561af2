//! What is wrong with a configuration, told so that it can be put right: where, which setting, what to do.

use std::fmt;
use std::path::PathBuf;

/// What stands wherever a secret is not shown.
pub const REDACTED: &str = "…redacted…";

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Line numbers start at 1.
    Line(PathBuf, usize),
    File(PathBuf),
    Variable(String),
    Flag,
    /// No file was given at all.
    Nowhere,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(file, line) => write!(f, "{}:{line}", file.display()),
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag => f.write_str("command line"),
            Self::Nowhere => f.write_str("configuration"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {message}")]
pub struct ConfigError {
    pub origin: Origin,
    /// Names the setting's path where there is one.
    pub message: String,
}

/// Every error that was found, one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
