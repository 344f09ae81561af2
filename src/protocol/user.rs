//! A person as the rules see them.

use serde_json::{Map, Value};
use unicode_normalization::UnicodeNormalization as _;

use super::ids::{ClientId, UserId};
use super::time::Timestamp;

#[derive(Clone, Debug, PartialEq)]
pub struct User {
    pub id: UserId,
    pub username: Option<String>,
    pub email: Option<String>,
    pub email_verified: bool,
    /// Further standard claims (OpenID Connect Core §5.1) by their names.
    pub claims: Map<String, Value>,
    /// What the person may do; only an operator sets them.
    pub roles: Vec<String>,
    pub groups: Vec<String>,
    /// Whose person it is; `None` for people who sign in on our own pages.
    pub partner: Option<ClientId>,
    /// The partner's own id for the person.
    pub external_id: Option<String>,
    pub disabled_at: Option<Timestamp>,
    pub updated_at: Timestamp,
}

impl User {
    pub fn is_active(&self) -> bool {
        self.disabled_at.is_none()
    }

    /// What pages call the person.
    pub fn display_name(&self) -> &str {
        let name = self.claims.get("name").and_then(Value::as_str);
        name.or(self.username.as_deref()).or(self.email.as_deref()).unwrap_or(self.id.as_str())
    }
}

/// Why a login name cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("a user name has 1 to 255 characters, without white space, control characters or `@`")]
    Username,
    #[error("this is not an e-mail address")]
    Email,
}

/// Whether a character prints nothing of its own, or turns around how its neighbours are printed: in a name it could
/// only make somebody look like somebody else.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
        )
}

/// Two spellings of one address compare equal after NFKC and lowercasing.
pub fn canonical_email(email: &str) -> Result<String, InvalidName> {
    let folded: String = email.nfkc().collect::<String>().to_lowercase();
    let (local, domain) = folded.rsplit_once('@').ok_or(InvalidName::Email)?;
    let bad = |c: char| c.is_whitespace() || is_unprintable(c);
    let well_formed = !local.is_empty() && !domain.is_empty() && !local.contains('@') && folded.len() <= 254;
    if well_formed && !folded.chars().any(bad) { Ok(folded) } else { Err(InvalidName::Email) }
}

/// User names are compared as they are written; they cannot look like an e-mail address.
pub fn checked_username(username: &str) -> Result<&str, InvalidName> {
    let bad = |c: char| c.is_whitespace() || is_unprintable(c) || c == '@';
    let well_formed = !username.is_empty() && username.chars().count() <= 255 && !username.chars().any(bad);
    if well_formed { Ok(username) } else { Err(InvalidName::Username) }
}

/// Characters of a role's or a group's name, and how many of each a person has at most: they stand in every token.
const MAX_LABEL: usize = 64;
const MAX_LABELS: usize = 100;

/// Names of roles or groups, each once.
///
/// # Errors
/// The first that cannot be one, or `None` where there are too many.
pub fn checked_labels(labels: Vec<String>) -> Result<Vec<String>, Option<String>> {
    let mut checked: Vec<String> = Vec::new();
    for label in labels {
        let bad = |c: char| c.is_whitespace() || c.is_control();
        if label.is_empty() || label.chars().count() > MAX_LABEL || label.chars().any(bad) {
            return Err(Some(label));
        }
        if !checked.contains(&label) {
            checked.push(label);
        }
    }
    if checked.len() > MAX_LABELS { Err(None) } else { Ok(checked) }
}

/// What somebody typed into the one field for both: an address where it contains `@`, a user name otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoginName {
    Username(String),
    Email(String),
}

impl LoginName {
    pub fn parse(typed: &str) -> Result<Self, InvalidName> {
        let typed = typed.trim();
        if typed.contains('@') {
            canonical_email(typed).map(Self::Email)
        } else {
            checked_username(typed).map(|name| Self::Username(name.to_owned()))
        }
    }

    /// The `kind` and `value` of an `identifiers` row.
    pub fn identifier(&self) -> (&'static str, &str) {
        match self {
            Self::Username(name) => ("username", name),
            Self::Email(email) => ("email", email),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_compare_after_nfkc_and_lowercasing() {
        for (typed, expected) in [
            ("Alice@Example.COM", Some("alice@example.com")),
            ("ａｌｉｃｅ@example.com", Some("alice@example.com")),
            ("a b@example.com", None),
            ("a\u{a0}b@example.com", None),
            ("@example.com", None),
            ("alice@", None),
            ("a@b@c", None),
            ("alice", None),
            ("alice@example.com\n", None),
            ("a\u{202e}ecila@example.com", None),
            ("al\u{200b}ice@example.com", None),
        ] {
            assert_eq!(canonical_email(typed).ok().as_deref(), expected, "{typed:?}");
        }
    }

    #[test]
    fn roles_and_groups_are_short_words_each_once() {
        let labels = |list: &[&str]| checked_labels(list.iter().map(|label| (*label).to_owned()).collect());
        assert_eq!(labels(&["student", "year-7", "student"]).unwrap(), ["student", "year-7"]);
        for bad in ["", "a b", "a\n", &"x".repeat(65)] {
            assert_eq!(labels(&["student", bad]), Err(Some(bad.to_owned())), "{bad:?}");
        }
        assert_eq!(checked_labels((0..101).map(|n| format!("r{n}")).collect()), Err(None));
    }

    #[test]
    fn one_field_takes_both_kinds_of_name() {
        for (typed, expected) in [
            ("alice", Some(("username", "alice"))),
            (" Alice ", Some(("username", "Alice"))),
            ("Alice@Example.com", Some(("email", "alice@example.com"))),
            ("", None),
            ("a b", None),
            ("a\u{0}", None),
            ("al\u{2066}ice", None),
        ] {
            let parsed = LoginName::parse(typed).ok();
            assert_eq!(parsed.as_ref().map(LoginName::identifier), expected, "{typed:?}");
        }
    }
}
