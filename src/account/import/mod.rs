//! Brings people of another system here, many at a time, with the `sub` and the password hash they had there. Whoever
//! is here already stays as they are, so that an import that broke off can simply be run again. Where the lines come
//! from, and who hears what became of them, is for the caller.

mod record;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::audit;
use super::declared::{AccountError, check_password};
use crate::ambient::random_bytes;
use crate::app::App;
use crate::crypto::password::{self, Cost, UnusableHash};
use crate::crypto::secret::Secret;
use crate::protocol::ids::UserId;
use crate::protocol::user::{InvalidName, User};
use crate::store::events::EventKind;
use crate::store::users::{Created, Namesakes, NewUser};
use crate::store::{Store, StoreError};

pub use record::{Password, Record};

/// How many people share a transaction: few enough that a running provider hardly waits for one.
pub const BATCH: usize = 250;
/// Look-ups that are under way at once.
const LOOKUPS: usize = 8;

/// Why a person cannot be imported; each names what to change, and none tells a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    #[error("the line is not one JSON object: {0}")]
    NotJson(String),
    #[error("the line is longer than {0} bytes")]
    TooLong(usize),
    #[error("`{member}` must be {expected}")]
    WrongType { member: String, expected: &'static str },
    #[error("`{member}` is not a member of a person; {advice}")]
    UnknownMember { member: String, advice: String },
    #[error("`{0}` holds U+0000, which no text here may")]
    Nul(String),
    #[error("a person needs a username or an email")]
    Nameless,
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error("`sub` and `id` are two names of one thing and differ; keep one")]
    TwoIds,
    #[error("a `sub` has 1 to 255 visible ASCII characters")]
    BadId,
    #[error("`password` and `password_hash` are both there; keep one")]
    TwoPasswords,
    #[error("the password hash cannot be used: {0}")]
    Hash(#[from] UnusableHash),
    #[error("{0}")]
    Policy(String),
    #[error("the id `{0}` is taken, by a client or by somebody who was deleted; ids are never given twice")]
    IdTaken(UserId),
    #[error("the {name} belongs to the person with id `{owner}`, not to `{wanted}`")]
    OtherId { name: String, owner: UserId, wanted: UserId },
    #[error("the {name} belongs to the person with id `{owner}`, whose {other}")]
    OtherName { name: String, owner: UserId, other: String },
    #[error("the line names two people who are here already: {0}")]
    TwoPeople(String),
    #[error("somebody took or gave up one of these names just now; import the line again")]
    Raced,
    #[error("the database refused it: {0}")]
    Refused(String),
}

/// What became of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Created,
    /// Is here already and was left as they are.
    Unchanged,
    Failed(ImportError),
}

pub struct Importer<'a> {
    app: &'a App,
    /// Where a dry run writes: names only, so that two lines that do not go together are found as they would be.
    scratch: Option<Store>,
}

impl<'a> Importer<'a> {
    pub fn new(app: &'a App) -> Self {
        Self { app, scratch: None }
    }

    /// Changes nothing; `scratch` is an empty database.
    pub fn dry_run(app: &'a App, scratch: Store) -> Self {
        Self { app, scratch: Some(scratch) }
    }

    /// Imports up to [`BATCH`] lines; the outcome of each, in their order. A line that was refused before is passed
    /// through.
    ///
    /// # Errors
    /// Where the database cannot be used. What earlier batches did stays done.
    pub async fn batch(&self, lines: Vec<Result<Record, ImportError>>) -> Result<Vec<Outcome>, StoreError> {
        let mut outcomes: Vec<Option<Outcome>> =
            stream::iter(&lines).map(|line| self.known(line)).buffered(LOOKUPS).try_collect().await?;
        let new = lines.into_iter().zip(&outcomes).enumerate();
        let new: Vec<(usize, Record)> = new
            .filter(|(_, (_, known))| known.is_none())
            .filter_map(|(at, (line, _))| Some((at, line.ok()?)))
            .collect();
        let made: Vec<Result<NewUser, ImportError>> = stream::iter(new.clone())
            .map(|(_, record)| self.new_user(record))
            .buffered(std::thread::available_parallelism().map_or(1, usize::from))
            .collect()
            .await;
        let mut users = Vec::new();
        for ((at, record), made) in new.into_iter().zip(made) {
            match made {
                Ok(user) => users.push((at, record, user)),
                Err(error) => outcomes[at] = Some(Outcome::Failed(error)),
            }
        }
        let created = self.create(users.iter().map(|(_, _, user)| user.clone()).collect()).await?;
        for ((at, record, _), created) in users.into_iter().zip(created) {
            outcomes[at] = Some(match created {
                Ok(Created::Yes) => Outcome::Created,
                // An earlier line of this batch, or somebody else, was faster.
                Ok(_) => self.known(&Ok(record)).await?.unwrap_or(Outcome::Failed(ImportError::Raced)),
                Err(error) => Outcome::Failed(error),
            });
        }
        Ok(outcomes.into_iter().flatten().collect())
    }

    /// What can be said of a line before anything is written; `None` where the person is new.
    async fn known(&self, line: &Result<Record, ImportError>) -> Result<Option<Outcome>, StoreError> {
        let record = match line {
            Ok(record) => record,
            Err(error) => return Ok(Some(Outcome::Failed(error.clone()))),
        };
        for store in std::iter::once(&self.app.store).chain(&self.scratch) {
            let (id, username, email) = (record.id.as_ref(), record.username.as_deref(), record.email.as_deref());
            let namesakes = store.namesakes(id, username, email).await?;
            if let Some(outcome) = judge(record, &namesakes) {
                return Ok(Some(outcome));
            }
        }
        Ok(None)
    }

    /// The person to write, with their password hashed at today's cost unless it is a hash already.
    async fn new_user(&self, record: Record) -> Result<NewUser, ImportError> {
        let app = self.app;
        let password_hash = match record.password {
            Password::None => None,
            Password::Hash(hash) => Some(hash),
            Password::Plain(password) => {
                check_password(&app.config, &password).map_err(policy)?;
                if self.scratch.is_some() { None } else { Some(hash(app, password).await?) }
            }
        };
        let dry = self.scratch.is_some();
        Ok(NewUser {
            of_partner: None,
            id: record.id.unwrap_or_else(|| UserId::from_random(app.rng.id())),
            username: record.username,
            email: record.email,
            email_verified: record.email_verified,
            claims: if dry { serde_json::Map::new() } else { record.claims },
            roles: record.roles,
            groups: record.groups,
            password_hash: password_hash.filter(|_| !dry),
            disabled_at: record.disabled.then(|| app.now()),
        })
    }

    /// Writes people together, or one by one where that fails, so that one of them does not take the others along.
    async fn create(&self, users: Vec<NewUser>) -> Result<Vec<Result<Created, ImportError>>, StoreError> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let store = self.scratch.as_ref().unwrap_or(&self.app.store);
        let now = self.app.now();
        let author = audit::import(self.app);
        let users: Vec<_> = users.into_iter().map(|user| (user, author.event(EventKind::UserCreated, now))).collect();
        match store.create_users(users.clone(), now).await {
            Ok(created) => return Ok(created.into_iter().map(Ok).collect()),
            Err(error) => tracing::debug!(%error, "a batch was refused; its lines are tried one by one"),
        }
        let mut outcomes = Vec::with_capacity(users.len());
        for user in users {
            outcomes.push(match store.create_users(vec![user], now).await {
                Ok(created) => created.first().copied().ok_or(ImportError::Raced),
                Err(error @ StoreError::Conflict(_)) => Err(ImportError::Refused(error.to_string())),
                Err(error) => return Err(error),
            });
        }
        Ok(outcomes)
    }
}

/// Not through `passwords`, which turns away whoever would wait too long.
async fn hash(app: &App, password: Secret<String>) -> Result<Secret<String>, ImportError> {
    let cost = Cost { memory_kib: app.config.passwords.memory_kib, iterations: app.config.passwords.iterations };
    let salt = random_bytes(app.rng.as_ref());
    let hashed = tokio::task::spawn_blocking(move || password::hash(password.expose(), &salt, cost).map(Secret::new));
    let failed = |why: String| ImportError::Policy(format!("the password could not be hashed: {why}"));
    hashed.await.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}

fn policy(error: AccountError) -> ImportError {
    ImportError::Policy(error.to_string())
}

/// Whether the people who are here are the one of this line; `None` where there is nobody.
fn judge(record: &Record, namesakes: &Namesakes) -> Option<Outcome> {
    let failed = |error| Some(Outcome::Failed(error));
    match (&namesakes.people[..], &record.id) {
        ([], Some(id)) if namesakes.id_given => failed(ImportError::IdTaken(id.clone())),
        ([], _) => None,
        // What they are called has perhaps changed since; they are the same all the same.
        ([one], Some(id)) if one.id == *id => Some(Outcome::Unchanged),
        ([one], Some(id)) => {
            let name = shared(record, one).unwrap_or_default();
            failed(ImportError::OtherId { name, owner: one.id.clone(), wanted: id.clone() })
        }
        ([one], None) => match differing(record, one) {
            None => Some(Outcome::Unchanged),
            Some(other) => {
                let name = shared(record, one).unwrap_or_default();
                failed(ImportError::OtherName { name, owner: one.id.clone(), other })
            }
        },
        (people, _) => {
            let each = |one: &User| match shared(record, one) {
                Some(name) => format!("the {name} is that of `{}`", one.id),
                None => format!("the id is that of `{}`", one.id),
            };
            failed(ImportError::TwoPeople(people.iter().map(each).collect::<Vec<_>>().join(", ")))
        }
    }
}

/// The name by which the line means this person.
fn shared(record: &Record, one: &User) -> Option<String> {
    let username = record.username.as_ref().filter(|username| one.username.as_ref() == Some(username));
    let email = record.email.as_ref().filter(|email| one.email.as_ref() == Some(email));
    username.map(|name| format!("username `{name}`")).or_else(|| email.map(|email| format!("email `{email}`")))
}

/// The name that the line gives and that this person does not bear.
fn differing(record: &Record, one: &User) -> Option<String> {
    for (kind, wanted, borne) in [("username", &record.username, &one.username), ("email", &record.email, &one.email)] {
        if wanted.is_some() && wanted != borne {
            let borne = borne.as_ref().map_or_else(|| "missing".to_owned(), |name| format!("`{name}`"));
            return Some(format!("{kind} is {borne}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::time::Timestamp;

    fn user(id: &str, username: Option<&str>, email: Option<&str>) -> User {
        User {
            id: UserId::new(id),
            username: username.map(str::to_owned),
            email: email.map(str::to_owned),
            email_verified: false,
            claims: serde_json::Map::new(),
            roles: vec!["student".to_owned()],
            groups: Vec::new(),
            partner: None,
            external_id: None,
            disabled_at: None,
            updated_at: Timestamp(0),
        }
    }

    #[test]
    fn whoever_is_here_already_is_known_again_and_nobody_else_is_taken_for_them() {
        let alice = || user("1", Some("alice"), Some("alice@x.test"));
        let bob = || user("2", Some("bob"), None);
        for (line, people, id_given, expected) in [
            (r#"{"username":"alice"}"#, vec![], false, "new"),
            (r#"{"username":"alice","sub":"9"}"#, vec![], true, "the id `9` is taken"),
            (r#"{"username":"alice","email":"Alice@x.test"}"#, vec![alice()], false, "unchanged"),
            (r#"{"username":"alice"}"#, vec![alice()], false, "unchanged"),
            (r#"{"email":"alice@x.test"}"#, vec![alice()], false, "unchanged"),
            (r#"{"username":"alice","email":"other@x.test"}"#, vec![alice()], false, "email is `alice@x.test`"),
            (r#"{"username":"alan","email":"alice@x.test"}"#, vec![alice()], false, "username is `alice`"),
            (r#"{"username":"bob","email":"bob@x.test"}"#, vec![bob()], false, "email is missing"),
            (r#"{"username":"bob","email":"alice@x.test"}"#, vec![alice(), bob()], false, "two people"),
            // An id tells for certain.
            (r#"{"sub":"1","username":"alice"}"#, vec![alice()], true, "unchanged"),
            (r#"{"sub":"1","username":"ally","email":"new@x.test"}"#, vec![alice()], true, "unchanged"),
            (
                r#"{"sub":"9","username":"alice"}"#,
                vec![alice()],
                false,
                "belongs to the person with id `1`, not to `9`",
            ),
            (
                r#"{"sub":"1","username":"bob"}"#,
                vec![alice(), bob()],
                true,
                "the id is that of `1`, the username `bob`",
            ),
        ] {
            let record = Record::parse(line.as_bytes()).expect(line);
            let judged = match judge(&record, &Namesakes { people, id_given }) {
                None => "new".to_owned(),
                Some(Outcome::Unchanged) => "unchanged".to_owned(),
                Some(Outcome::Failed(error)) => error.to_string(),
                Some(Outcome::Created) => "created".to_owned(),
            };
            assert!(judged.contains(expected), "{line}: {judged}");
        }
    }
}
