//! The device API (PlaySmart's): players register with an address, a password and the id of their device, which becomes
//! their `sub` for ever.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{is_shorter, is_too_long, text};
use crate::crypto::password::MAX_PASSWORD_BYTES;
use crate::crypto::secret::Secret;
use crate::protocol::ids::UserId;
use crate::protocol::user::{User, canonical_email};

const LONGEST_DEVICE_ID: usize = 255;
/// Characters.
const LONGEST_PSEUDO: usize = 64;
/// The largest number that every JSON parser reads exactly (RFC 8259 §6).
const MOST_GAMES: u64 = (1 << 53) - 1;

/// What is wrong with each member of a body, by its name.
pub type Details = BTreeMap<&'static str, String>;

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    Payload(Details),
    EmailTaken,
    DeviceTaken,
    /// The address is unknown, the password wrong, or the account disabled.
    Credentials,
    NoToken,
    /// Not a token of this API, or one that is expired or was ended.
    Token,
}

impl Refusal {
    /// A class, as the `code` of the answer.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Payload(_) => "BAD_REQUEST",
            Self::EmailTaken | Self::DeviceTaken => "CONFLICT",
            Self::Credentials | Self::NoToken | Self::Token => "UNAUTHORIZED",
        }
    }
}

/// The `message` of the answer.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Payload(_) => "invalid_payload",
            Self::EmailTaken => "email_already_registered",
            Self::DeviceTaken => "device_already_registered",
            Self::Credentials => "invalid_credentials",
            Self::NoToken => "missing_bearer_token",
            Self::Token => "invalid_token",
        })
    }
}

/// Reads members and notes what is wrong with each, so that one answer tells everything.
struct Members<'a> {
    body: &'a Map<String, Value>,
    wrong: Details,
}

impl<'a> Members<'a> {
    fn of(body: &'a Map<String, Value>) -> Self {
        Self { body, wrong: Details::new() }
    }

    fn text(&mut self, name: &'static str) -> &'a str {
        match text(self.body, name) {
            Some(text) => text,
            None => {
                let present = self.body.get(name).is_some_and(|value| !value.is_null());
                self.refuse(name, if present { "must be a text with something in it" } else { "is required" });
                ""
            }
        }
    }

    fn email(&mut self) -> String {
        let typed = self.text("email");
        canonical_email(typed).unwrap_or_else(|_| {
            self.refuse("email", "must be an e-mail address");
            String::new()
        })
    }

    fn refuse(&mut self, name: &'static str, why: impl Into<String>) {
        self.wrong.entry(name).or_insert(why.into());
    }

    fn finish<T>(self, whole: T) -> Result<T, Refusal> {
        if self.wrong.is_empty() { Ok(whole) } else { Err(Refusal::Payload(self.wrong)) }
    }
}

/// A new player.
#[derive(Debug)]
pub struct Registration {
    /// Canonical.
    pub email: String,
    pub password: Secret<String>,
    pub device_id: UserId,
}

impl Registration {
    pub fn parse(body: &Map<String, Value>, password_min_length: u32) -> Result<Self, Refusal> {
        let mut members = Members::of(body);
        let (email, password, device_id) = (members.email(), members.text("password"), members.text("deviceId"));
        if is_shorter(password, password_min_length) {
            members.refuse("password", format!("must have at least {password_min_length} characters"));
        }
        if is_too_long(password) {
            members.refuse("password", format!("must have at most {MAX_PASSWORD_BYTES} bytes"));
        }
        if device_id.len() > LONGEST_DEVICE_ID || !device_id.bytes().all(|byte| (b'!'..=b'~').contains(&byte)) {
            let why = format!("must be 1 to {LONGEST_DEVICE_ID} printable ASCII characters without spaces");
            members.refuse("deviceId", why);
        }
        let password = Secret::new(password.to_owned());
        members.finish(Self { email, password, device_id: UserId::new(device_id) })
    }
}

/// A player who was here before.
#[derive(Debug)]
pub struct Login {
    /// Canonical.
    pub email: String,
    pub password: Secret<String>,
}

impl Login {
    pub fn parse(body: &Map<String, Value>) -> Result<Self, Refusal> {
        let mut members = Members::of(body);
        let (email, password) = (members.email(), members.text("password"));
        let password = Secret::new(password.to_owned());
        members.finish(Self { email, password })
    }
}

/// The one member of a refresh.
pub fn refresh_token(body: &Map<String, Value>) -> Result<String, Refusal> {
    let mut members = Members::of(body);
    let token = members.text("refresh_token").to_owned();
    members.finish(token)
}

/// What a player may change; `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub pseudo: Option<String>,
    pub total_games_completed: Option<i64>,
}

impl Changes {
    pub fn parse(body: &Map<String, Value>) -> Result<Self, Refusal> {
        let mut members = Members::of(body);
        let mut changes = Self::default();
        if let Some(value) = body.get("pseudo") {
            let fits = |text: &&str| text.chars().count() <= LONGEST_PSEUDO && !text.chars().any(char::is_control);
            changes.pseudo = value.as_str().filter(fits).map(str::to_owned);
            if changes.pseudo.is_none() {
                members.refuse("pseudo", format!("must be a text of at most {LONGEST_PSEUDO} characters"));
            }
        }
        if let Some(value) = body.get("total_games_completed") {
            let games = value.as_u64().filter(|games| *games <= MOST_GAMES);
            changes.total_games_completed = games.and_then(|games| i64::try_from(games).ok());
            if games.is_none() {
                members.refuse("total_games_completed", format!("must be a whole number from 0 to {MOST_GAMES}"));
            }
        }
        members.finish(changes)
    }
}

/// What is kept of a player beside the account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    pub pseudo: String,
    pub total_games_completed: i64,
}

/// `user`, as the answers have it.
#[derive(Debug, Serialize)]
pub struct Player<'a> {
    id: &'a str,
    email: Option<&'a str>,
    pseudo: &'a str,
    total_games_completed: i64,
}

impl<'a> Player<'a> {
    pub fn of(user: &'a User, profile: &'a Profile) -> Self {
        Self {
            id: user.id.as_str(),
            email: user.email.as_deref(),
            pseudo: &profile.pseudo,
            total_games_completed: profile.total_games_completed,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wrong<T: fmt::Debug>(parsed: Result<T, Refusal>) -> Vec<&'static str> {
        match parsed {
            Ok(_) => Vec::new(),
            Err(Refusal::Payload(details)) => details.into_keys().collect(),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_registration_names_every_bad_field() {
        let good = json!({ "email": "Player@Example.com", "password": "s3cur3pass", "deviceId": "device-abc-123" });
        let registration = Registration::parse(good.as_object().unwrap(), 8).unwrap();
        assert_eq!(
            (registration.email.as_str(), registration.device_id.as_str()),
            ("player@example.com", "device-abc-123")
        );
        for (changes, expected) in [
            (json!({}), &[][..]),
            (json!({ "role": "admin", "email_verified": true }), &[]),
            (json!({ "email": "nobody" }), &["email"]),
            (json!({ "email": null, "password": 8, "deviceId": [] }), &["deviceId", "email", "password"]),
            (json!({ "password": "1234567" }), &["password"]),
            (json!({ "password": "x".repeat(1024) }), &[]),
            (json!({ "password": "x".repeat(1025) }), &["password"]),
            (json!({ "deviceId": "" }), &["deviceId"]),
            (json!({ "deviceId": "a b" }), &["deviceId"]),
            (json!({ "deviceId": "é" }), &["deviceId"]),
            (json!({ "deviceId": "~".repeat(255) }), &[]),
            (json!({ "deviceId": "~".repeat(256) }), &["deviceId"]),
        ] {
            let mut body = good.as_object().unwrap().clone();
            body.extend(changes.as_object().unwrap().clone());
            assert_eq!(wrong(Registration::parse(&body, 8)), expected, "{changes}");
        }
    }

    #[test]
    fn a_sign_in_asks_for_no_more_than_it_needs() {
        for (body, expected) in [
            (json!({ "email": "a@b.test", "password": "x" }), &[][..]),
            (json!({ "email": "a", "password": "x" }), &["email"]),
            (json!({}), &["email", "password"]),
        ] {
            assert_eq!(wrong(Login::parse(body.as_object().unwrap())), expected, "{body}");
        }
        assert_eq!(wrong(refresh_token(&Map::new())), ["refresh_token"]);
    }

    #[test]
    fn a_player_changes_two_things_within_bounds() {
        for (body, expected) in [
            (json!({}), &[][..]),
            (json!({ "pseudo": "", "total_games_completed": 0 }), &[]),
            (json!({ "pseudo": "é".repeat(64), "total_games_completed": 9_007_199_254_740_991_u64 }), &[]),
            (
                json!({ "pseudo": "é".repeat(65), "total_games_completed": 9_007_199_254_740_992_u64 }),
                &["pseudo", "total_games_completed"],
            ),
            (json!({ "pseudo": null, "total_games_completed": -1 }), &["pseudo", "total_games_completed"]),
            (json!({ "pseudo": "a\u{1b}[2J", "total_games_completed": 1.5 }), &["pseudo", "total_games_completed"]),
            (json!({ "total_games_completed": "1" }), &["total_games_completed"]),
        ] {
            assert_eq!(wrong(Changes::parse(body.as_object().unwrap())), expected, "{body}");
        }
    }
}
