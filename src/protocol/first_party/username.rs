//! The username API (inspir's): sign-up and sign-in with a user name, one token for a week. Its clients show our texts
//! to people, so the texts and the order of the checks are part of the interface.

use std::fmt;

use serde_json::{Map, Value};

use super::{is_shorter, is_too_long, text};
use crate::crypto::password::MAX_PASSWORD_BYTES;
use crate::crypto::secret::Secret;

/// Characters of a user name here; elsewhere it may have others.
const SHORTEST_NAME: usize = 3;
const LONGEST_NAME: usize = 50;

/// Why somebody was not signed up or in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    MissingFields,
    NameCharacters,
    NameLength,
    PasswordMismatch,
    PasswordTooShort {
        characters: u32,
    },
    PasswordTooLong,
    NameTaken,
    /// The name is unknown, the password wrong, or the account disabled.
    Credentials,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingFields => f.write_str("Username and password are required"),
            Self::NameCharacters => f.write_str("Username can only contain letters, numbers, underscores, and hyphens"),
            Self::NameLength => {
                write!(f, "Username must be between {SHORTEST_NAME} and {LONGEST_NAME} characters")
            }
            Self::PasswordMismatch => f.write_str("Passwords do not match"),
            Self::PasswordTooShort { characters } => write!(f, "Password must be at least {characters} characters"),
            Self::PasswordTooLong => write!(f, "Password must be at most {MAX_PASSWORD_BYTES} bytes"),
            Self::NameTaken => f.write_str("Username already exists"),
            Self::Credentials => f.write_str("Invalid username or password"),
        }
    }
}

/// Why a call that needs somebody signed in has nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unauthenticated {
    NoToken,
    /// Not a token of this API, or one that was signed out.
    InvalidToken,
    TokenExpired,
    /// The person is disabled or gone.
    NobodyThere,
    /// A token about no person.
    NotAPerson,
}

impl fmt::Display for Unauthenticated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoToken => "No authorization token provided",
            Self::InvalidToken => "Invalid token",
            Self::TokenExpired => "Token expired",
            Self::NobodyThere => "Invalid or expired token",
            Self::NotAPerson => "Not authenticated",
        })
    }
}

/// A name and a password as they came.
#[derive(Debug)]
pub struct Login {
    pub username: String,
    pub password: Secret<String>,
}

impl Login {
    pub fn parse(body: &Map<String, Value>) -> Result<Self, Refusal> {
        let (username, password) = text(body, "username").zip(text(body, "password")).ok_or(Refusal::MissingFields)?;
        Ok(Self { username: username.to_owned(), password: Secret::new(password.to_owned()) })
    }

    /// The same for a new account.
    pub fn parse_sign_up(body: &Map<String, Value>, password_min_length: u32) -> Result<Self, Refusal> {
        let new = Self::parse(body)?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if !new.username.bytes().all(allowed) {
            return Err(Refusal::NameCharacters);
        }
        if !(SHORTEST_NAME..=LONGEST_NAME).contains(&new.username.len()) {
            return Err(Refusal::NameLength);
        }
        if body.get("confirmPassword").and_then(Value::as_str) != Some(new.password.expose()) {
            return Err(Refusal::PasswordMismatch);
        }
        if is_shorter(new.password.expose(), password_min_length) {
            return Err(Refusal::PasswordTooShort { characters: password_min_length });
        }
        if is_too_long(new.password.expose()) {
            return Err(Refusal::PasswordTooLong);
        }
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sign_up_is_checked_in_the_order_of_the_page() {
        let long = "x".repeat(1025);
        for (username, password, confirm, expected) in [
            (json!("ada"), json!("secret"), json!("secret"), None),
            (json!("Ada_-9"), json!("sécret"), json!("sécret"), None),
            (json!(null), json!("a"), json!("b"), Some("Username and password are required")),
            (json!("a b"), json!(""), json!("b"), Some("Username and password are required")),
            (json!(7), json!("secret"), json!("secret"), Some("Username and password are required")),
            (
                json!("a b"),
                json!("a"),
                json!("b"),
                Some("Username can only contain letters, numbers, underscores, and hyphens"),
            ),
            (
                json!("àda"),
                json!("a"),
                json!("b"),
                Some("Username can only contain letters, numbers, underscores, and hyphens"),
            ),
            (json!("ad"), json!("a"), json!("b"), Some("Username must be between 3 and 50 characters")),
            (json!("a".repeat(51)), json!("a"), json!("b"), Some("Username must be between 3 and 50 characters")),
            (json!("a".repeat(50)), json!("secret"), json!("secret"), None),
            (json!("ada"), json!("a"), json!("b"), Some("Passwords do not match")),
            (json!("ada"), json!("secret"), json!(null), Some("Passwords do not match")),
            (json!("ada"), json!("12345"), json!("12345"), Some("Password must be at least 6 characters")),
            (json!("ada"), json!(long), json!(long), Some("Password must be at most 1024 bytes")),
        ] {
            let body = json!({ "username": username, "password": password, "confirmPassword": confirm });
            let refused = Login::parse_sign_up(body.as_object().unwrap(), 6).err().map(|refusal| refusal.to_string());
            assert_eq!(refused.as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn sign_in_needs_both_and_nothing_else() {
        for (body, whole) in [
            (json!({ "username": "a b", "password": "x", "role": "admin" }), true),
            (json!({ "username": "ada" }), false),
            (json!({ "password": "x" }), false),
            (json!({ "username": "ada", "password": ["x"] }), false),
        ] {
            assert_eq!(Login::parse(body.as_object().unwrap()).is_ok(), whole, "{body}");
        }
    }
}
