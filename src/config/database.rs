//! The URL of the database, as `database.url` has it. Opening it, and what its query may say, is for `store`.

use std::path::Path;

use url::Url;

use super::error::REDACTED;

const SQLITE: &str = "sqlite://";

/// The URL with the path of an SQLite file put beside `base`; `None` when it is no URL of a database we speak.
pub fn beside(text: &str, base: &Path) -> Option<String> {
    let url = Url::parse(text).ok()?;
    match text.strip_prefix(SQLITE) {
        Some("") => None,
        // The file is all there is to choose; how it is opened is not.
        Some(path) if path.contains(['?', '#']) => None,
        Some(path) if path.starts_with('/') => Some(text.to_owned()),
        Some(path) if base.as_os_str().is_empty() => Some(format!("{SQLITE}{path}")),
        Some(path) => Some(format!("{}/{path}", sqlite_url(base)?)),
        None => {
            let is_postgres = matches!(url.scheme(), "postgres" | "postgresql") && url.has_host();
            is_postgres.then(|| text.to_owned())
        }
    }
}

/// The URL of an SQLite file; `None` when its path is not UTF-8.
pub fn sqlite_url(path: &Path) -> Option<String> {
    let mut url = SQLITE.to_owned();
    for byte in path.to_str()?.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_' | b'~') {
            url.push(char::from(byte));
        } else {
            url.push_str(&format!("%{byte:02X}"));
        }
    }
    Some(url)
}

/// A database URL to show to people.
pub fn without_password(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut parsed)
            if parsed.password().is_some() || parsed.query().is_some_and(|query| query.contains("password")) =>
        {
            // A URL without a host cannot hold a password, so a failure here means that there is none to show.
            let _ = parsed.set_password(Some("redacted"));
            if parsed.query().is_some_and(|query| query.contains("password")) {
                parsed.set_query(Some("redacted"));
            }
            parsed.to_string()
        }
        Ok(_) => url.to_owned(),
        // Somewhere in a text that is no URL there may still be a password.
        Err(_) => REDACTED.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        for url in ["postgres://h/d?password=hunter2", "postgres://u:hunter2@h:port/d"] {
            assert!(!without_password(url).contains("hunter2"), "{url}");
        }
        assert_eq!(without_password("sqlite://data/keyward.db"), "sqlite://data/keyward.db");
    }

    #[test]
    fn a_directory_with_odd_characters_still_makes_a_url() {
        let url = beside("sqlite://k.db", Path::new("/srv/My Data/50%?")).expect("a URL");
        assert_eq!(url, "sqlite:///srv/My%20Data/50%25%3F/k.db");
    }
}
