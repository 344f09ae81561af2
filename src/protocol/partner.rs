//! Partners' people as the rules see them: what may be said of one, who stands in the way of a new one, and how far
//! somebody got on their way in.

use serde::{Deserialize, Serialize};

use super::client::{Client, wire_enum};
use super::scope::{PARTNER_USERS, ScopeSet};
use super::time::Span;
use super::user::{User, canonical_email};

/// Characters of a partner's own id for somebody.
pub const MAX_EXTERNAL_ID: usize = 255;
/// Characters of a name.
pub const MAX_NAME: usize = 200;
/// Lines of an import.
pub const MAX_IMPORT_LINES: usize = 10_000;
/// How long an answer can be asked for again by its `Idempotency-Key`.
pub const ANSWERS_KEPT: Span = Span::days(1);
/// Characters of an `Idempotency-Key`.
pub const MAX_IDEMPOTENCY_KEY: usize = 255;
/// How long a browser may take to come with a hand-off's link.
pub const HANDOFF_TTL: Span = Span::minutes(1);
/// Sessions that hand-offs of one person have at a time.
pub const MAX_HANDED_OVER: i64 = 100;

wire_enum! {
    /// How far somebody got.
    pub enum OnboardingState {
        /// The request was taken, and nothing came of it yet.
        Received = "received",
        UserCreated = "user_created",
        KeyIssued = "key_issued",
        MailQueued = "mail_queued",
        MailSent = "mail_sent",
        /// They have used their account: the end.
        FirstAuth = "first_auth",
        /// `reason` says what went wrong.
        Failed = "failed",
    }
}

wire_enum! {
    pub enum WelcomeEmail {
        Send = "send",
        Suppress = "suppress",
    }
}

wire_enum! {
    /// What to do where the person is there already.
    pub enum OnExisting {
        Return = "return",
        Error = "error",
    }
}

/// Somebody to register, as a partner may say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The partner's own id for them.
    pub external_id: String,
    /// Canonical.
    pub email: String,
    pub name: Option<String>,
    pub locale: Option<String>,
    pub welcome_email: WelcomeEmail,
    pub on_existing: OnExisting,
}

/// What cannot be said of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unacceptable {
    #[error("external_id must have 1 to {MAX_EXTERNAL_ID} characters, without control characters")]
    ExternalId,
    #[error("email is not an e-mail address")]
    Email,
    #[error("name must have 1 to {MAX_NAME} characters, without control characters")]
    Name,
    #[error("locale is not a language tag like de-AT (BCP 47)")]
    Locale,
}

impl Registration {
    /// Checks what a partner said.
    pub fn checked(mut self) -> Result<Self, Unacceptable> {
        check_external_id(&self.external_id)?;
        self.email = canonical_email(&self.email).map_err(|_| Unacceptable::Email)?;
        self.name.as_deref().map_or(Ok(()), check_name)?;
        self.locale.as_deref().map_or(Ok(()), check_locale)?;
        Ok(self)
    }
}

pub fn check_external_id(external_id: &str) -> Result<(), Unacceptable> {
    let length = external_id.chars().count();
    let fits = (1..=MAX_EXTERNAL_ID).contains(&length) && !external_id.chars().any(char::is_control);
    if fits && external_id.trim() == external_id { Ok(()) } else { Err(Unacceptable::ExternalId) }
}

pub fn check_name(name: &str) -> Result<(), Unacceptable> {
    let length = name.chars().count();
    let fits = (1..=MAX_NAME).contains(&length) && !name.chars().any(char::is_control) && !name.trim().is_empty();
    if fits { Ok(()) } else { Err(Unacceptable::Name) }
}

pub fn check_locale(locale: &str) -> Result<(), Unacceptable> {
    let is_subtag = |tag: &str| (1..=8).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let begins = locale.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    if begins && locale.len() <= 35 && locale.split('-').all(is_subtag) { Ok(()) } else { Err(Unacceptable::Locale) }
}

/// A changed member: absent leaves it as it is, `null` takes it away.
pub type Change = Option<Option<String>>;

/// What a partner may change of somebody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub name: Change,
    pub locale: Change,
    /// Canonical.
    pub email: Option<String>,
}

impl Changes {
    pub fn checked(mut self) -> Result<Self, Unacceptable> {
        self.email = self.email.map(|email| canonical_email(&email)).transpose().map_err(|_| Unacceptable::Email)?;
        self.name.iter().flatten().try_for_each(|name| check_name(name))?;
        self.locale.iter().flatten().try_for_each(|locale| check_locale(locale))?;
        Ok(self)
    }
}

/// Who bears a registration's names already, among the partner's own people; nobody else counts.
#[derive(Clone, Debug, Default)]
pub struct Claimants {
    pub by_external_id: Option<User>,
    pub by_email: Option<User>,
}

/// What a registration comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Create,
    /// They are there, as they were asked for.
    Existing(Box<User>),
    Refused(Conflict),
}

/// What stands in the way of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// They are there, and the partner wanted to be told.
    UserExists,
    /// The partner gave the id to somebody with another address.
    ExternalIdConflict,
    /// Somebody else of the partner's has the address.
    EmailInUse { external_id: String },
}

impl Conflict {
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UserExists => "user_exists",
            Self::ExternalIdConflict => "external_id_conflict",
            Self::EmailInUse { .. } => EMAIL_IN_USE,
        }
    }
}

/// The code of [`Conflict::EmailInUse`].
pub const EMAIL_IN_USE: &str = "email_in_use_by_partner_user";

impl std::fmt::Display for Conflict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UserExists => f.write_str("this external_id is registered, with this address"),
            Self::ExternalIdConflict => f.write_str("this external_id is registered with another address"),
            Self::EmailInUse { external_id } => {
                write!(f, "your user with external_id `{external_id}` has this address")
            }
        }
    }
}

/// Judges a registration. Whoever has the address elsewhere, as one of our own people or another partner's, is neither
/// asked nor told of.
pub fn judge(registration: &Registration, claimants: Claimants) -> Verdict {
    match (claimants.by_external_id, claimants.by_email) {
        (None, None) => Verdict::Create,
        (Some(user), _) if user.email.as_deref() != Some(&registration.email) => {
            Verdict::Refused(Conflict::ExternalIdConflict)
        }
        (Some(_), _) if registration.on_existing == OnExisting::Error => Verdict::Refused(Conflict::UserExists),
        (Some(user), _) => Verdict::Existing(Box::new(user)),
        (None, Some(other)) => {
            Verdict::Refused(Conflict::EmailInUse { external_id: other.external_id.unwrap_or_default() })
        }
    }
}

/// Where somebody is after their registration.
pub const fn first_state(has_key: bool, has_mail: bool) -> OnboardingState {
    match (has_key, has_mail) {
        (_, true) => OnboardingState::MailQueued,
        (true, false) => OnboardingState::KeyIssued,
        (false, false) => OnboardingState::UserCreated,
    }
}

/// Whether a client with a token of this scope may administer a partner's people: those of the client itself.
pub fn may_administer(client: &Client, scope: &ScopeSet) -> bool {
    client.metadata.partner && scope.contains(PARTNER_USERS)
}

#[cfg(test)]
mod tests {
    use super::super::grant::tests::{client, user};
    use super::super::ids::ClientId;
    use super::*;

    fn registration(external_id: &str, email: &str) -> Registration {
        Registration {
            external_id: external_id.to_owned(),
            email: email.to_owned(),
            name: None,
            locale: None,
            welcome_email: WelcomeEmail::Send,
            on_existing: OnExisting::Return,
        }
    }

    #[test]
    fn what_a_partner_says_is_checked_and_made_canonical() {
        let checked = registration("42", "Ada@Example.COM").checked().unwrap();
        assert_eq!(checked.email, "ada@example.com");
        let long = "x".repeat(MAX_EXTERNAL_ID + 1);
        for (bad, why) in [
            (registration("", "a@b.c"), Unacceptable::ExternalId),
            (registration(" 42", "a@b.c"), Unacceptable::ExternalId),
            (registration("4\u{7}2", "a@b.c"), Unacceptable::ExternalId),
            (registration(&long, "a@b.c"), Unacceptable::ExternalId),
            (registration("42", "nonsense"), Unacceptable::Email),
            (registration("42", "a b@c.d"), Unacceptable::Email),
            (Registration { name: Some(" ".to_owned()), ..registration("42", "a@b.c") }, Unacceptable::Name),
            (Registration { name: Some("a\nb".to_owned()), ..registration("42", "a@b.c") }, Unacceptable::Name),
            (Registration { locale: Some("de_AT".to_owned()), ..registration("42", "a@b.c") }, Unacceptable::Locale),
            (Registration { locale: Some("7".to_owned()), ..registration("42", "a@b.c") }, Unacceptable::Locale),
        ] {
            assert_eq!(bad.clone().checked(), Err(why), "{bad:?}");
        }
        let good = Registration { name: Some("Ada".to_owned()), locale: Some("de-AT".to_owned()), ..checked };
        assert_eq!(good.clone().checked(), Ok(good));
    }

    #[test]
    fn nobody_is_registered_twice_and_nobody_elses_names_are_taken() {
        let person = |external_id: &str, email: &str| {
            let (external_id, email) = (Some(external_id.to_owned()), Some(email.to_owned()));
            User { external_id, email, partner: Some(ClientId::new("acme")), ..user() }
        };
        let ada = person("42", "ada@b.c");
        let found = |by_external_id: Option<&User>, by_email: Option<&User>| Claimants {
            by_external_id: by_external_id.cloned(),
            by_email: by_email.cloned(),
        };
        let bob = person("43", "bob@b.c");
        let asked = registration("42", "ada@b.c");
        let strict = Registration { on_existing: OnExisting::Error, ..asked.clone() };
        let in_use = Conflict::EmailInUse { external_id: "43".to_owned() };
        for (registration, claimants, expected) in [
            (&asked, found(None, None), Verdict::Create),
            (&strict, found(None, None), Verdict::Create),
            (&asked, found(Some(&ada), Some(&ada)), Verdict::Existing(Box::new(ada.clone()))),
            (&strict, found(Some(&ada), Some(&ada)), Verdict::Refused(Conflict::UserExists)),
            (&registration("42", "new@b.c"), found(Some(&ada), None), Verdict::Refused(Conflict::ExternalIdConflict)),
            (
                &registration("42", "bob@b.c"),
                found(Some(&ada), Some(&bob)),
                Verdict::Refused(Conflict::ExternalIdConflict),
            ),
            (&registration("44", "bob@b.c"), found(None, Some(&bob)), Verdict::Refused(in_use)),
        ] {
            assert_eq!(judge(registration, claimants), expected, "{registration:?}");
        }
    }

    #[test]
    fn only_a_partner_with_the_scope_administers() {
        let with = |partner: bool, scope: &str| {
            let mut client = client(false);
            client.metadata.partner = partner;
            may_administer(&client, &scope.parse().unwrap())
        };
        assert!(with(true, "partner.users"));
        assert!(with(true, "x partner.users"));
        assert!(!with(true, "openid"));
        assert!(!with(false, "partner.users"));
    }
}
