//! Partners' people: made with their key, their way in and the answer to the partner in one transaction, and changed
//! only by the partner whose they are.

use sqlx::any::AnyRow;

use super::api_keys::NewApiKey;
use super::db::Conn;
use super::events::{self, Event};
use super::idempotency::{self, ANSWERED, NewAnswer};
use super::onboardings::{self, Onboarding};
use super::outbox::{self, NewMail};
use super::users::{self, NewUser, read, realm_of, user_columns};
use super::{Result, Store, StoreError, api_keys, column, imports, to_json};
use crate::protocol::ids::{ClientId, UserId};
use crate::protocol::partner::{Change, Changes, Claimants};
use crate::protocol::time::Timestamp;
use crate::protocol::user::User;

/// One of a partner's people.
#[derive(Clone, Debug)]
pub struct PartnerUser {
    pub user: User,
    pub created_at: Timestamp,
}

fn read_user(row: &AnyRow) -> Result<PartnerUser> {
    Ok(PartnerUser { user: read(row)?, created_at: Timestamp(column(row, "user_created_at")?) })
}

/// Which of a partner's people.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub external_id: Option<String>,
    /// Canonical.
    pub email: Option<String>,
}

/// Somebody to make, with everything that is theirs from the start.
#[derive(Clone)]
pub struct NewPartnerUser {
    pub user: NewUser,
    pub key: Option<NewApiKey>,
    pub onboarding: Onboarding,
    /// The letter that welcomes them.
    pub mail: Option<NewMail>,
    pub events: Vec<Event>,
    /// The answer to the request, if it may be asked for again.
    pub answer: Option<NewAnswer>,
    /// The line of an import that this is.
    pub line: Option<imports::LineId>,
}

/// What a registration came to in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    Yes,
    /// Somebody took one of the names meanwhile: look again.
    NameTaken,
    /// The request was answered meanwhile.
    Answered,
    /// The line of the import was done meanwhile.
    LineDone,
}

/// What a change came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    Yes,
    /// It was so before.
    Same,
    /// There is no such person of this partner's.
    NotThere,
    EmailTaken,
}

/// That somebody is the one of the realm `$1` whose address is `$3`.
macro_rules! bears_email {
    () => {
        "u.id = (SELECT i.user_id FROM identifiers i WHERE i.realm = $1 AND i.kind = 'email' AND i.value = $3)"
    };
}

impl Store {
    /// Who bears these names among a partner's people.
    pub async fn claimants(&self, partner: &ClientId, external_id: &str, email: &str) -> Result<Claimants> {
        let sql = concat!(
            "SELECT ",
            user_columns!(),
            " FROM users u WHERE u.realm = $1 AND u.external_id = $2 UNION ALL SELECT ",
            user_columns!(),
            " FROM users u WHERE ",
            bears_email!()
        );
        let realm = realm_of(partner);
        let statement = || sqlx::query(sql).bind(realm.clone()).bind(external_id.to_owned()).bind(email.to_owned());
        let found = self.db.rows(statement).await?.iter().map(read).collect::<Result<Vec<_>>>()?;
        let who = |is: &dyn Fn(&User) -> bool| found.iter().find(|user| is(user)).cloned();
        Ok(Claimants {
            by_external_id: who(&|user| user.external_id.as_deref() == Some(external_id)),
            by_email: who(&|user| user.email.as_deref() == Some(email)),
        })
    }

    /// Makes somebody, with all that is theirs or not at all.
    pub async fn register(&self, new: NewPartnerUser, now: Timestamp) -> Result<Registered> {
        // Nobody has cached anything about a person who was not there.
        let written = self.db.write(move |conn| Box::pin(async move { register(conn, &new, now).await })).await;
        match written {
            Ok(()) => {
                self.mail_was_queued();
                Ok(Registered::Yes)
            }
            Err(StoreError::Refused(ANSWERED)) => Ok(Registered::Answered),
            Err(StoreError::Refused(imports::DONE)) => Ok(Registered::LineDone),
            Err(StoreError::Refused(users::EXTERNAL_ID_TAKEN | users::EMAIL_TAKEN)) => Ok(Registered::NameTaken),
            Err(error) => Err(error),
        }
    }

    /// One of a partner's people; somebody else's is as good as none.
    pub async fn partner_user(&self, partner: &ClientId, id: &UserId) -> Result<Option<PartnerUser>> {
        let sql = concat!(
            "SELECT u.created_at AS user_created_at, ",
            user_columns!(),
            " FROM users u WHERE u.id = $1 AND u.realm = $2"
        );
        let realm = realm_of(partner);
        let statement = || sqlx::query(sql).bind(id.as_str().to_owned()).bind(realm.clone());
        self.db.row(statement).await?.as_ref().map(read_user).transpose()
    }

    /// Up to `limit` of a partner's people in the order of their creation, after the one made at `after`.
    pub async fn partner_users(
        &self,
        partner: &ClientId,
        filter: Filter,
        after: Option<(Timestamp, UserId)>,
        limit: i64,
    ) -> Result<Vec<PartnerUser>> {
        // A text for each, so that its index answers it: only that of all states the condition of `users_by_partner`. What
        // finds one person has nothing to put in order, and says where to go on so that no index of that offers itself.
        macro_rules! page_of {
            ($filter:expr, $after:literal) => {
                concat!(
                    "SELECT u.created_at AS user_created_at, ",
                    user_columns!(),
                    " FROM users u WHERE u.realm = $1 AND ",
                    $filter,
                    " AND ",
                    $after,
                    " LIMIT $6"
                )
            };
            ($filter:expr) => {
                page_of!($filter, "(u.created_at + 0, u.id) > ($4, $5)")
            };
        }
        let sql = match &filter {
            Filter { external_id: None, email: None } => {
                page_of!(
                    "length(u.external_id) > 0 AND $2 = '' AND $3 = ''",
                    "(u.created_at, u.id) > ($4, $5) ORDER BY u.created_at, u.id"
                )
            }
            Filter { external_id: Some(_), .. } => page_of!("u.external_id = $2 AND ($3 = '' OR u.email = $3)"),
            Filter { external_id: None, email: Some(_) } => page_of!(concat!("$2 = '' AND ", bears_email!())),
        };
        let realm = realm_of(partner);
        let [external_id, email] = [filter.external_id, filter.email].map(Option::unwrap_or_default);
        let (at, id) = after.map_or((i64::MIN, String::new()), |(at, id)| (at.millis(), id.as_str().to_owned()));
        let statement = || {
            let statement = sqlx::query(sql).bind(realm.clone()).bind(external_id.clone()).bind(email.clone());
            statement.bind(at).bind(id.clone()).bind(limit)
        };
        self.db.rows(statement).await?.iter().map(read_user).collect()
    }

    /// Changes what is known of somebody. A new address is not verified.
    pub async fn change_partner_user(
        &self,
        partner: &ClientId,
        id: UserId,
        changes: Changes,
        event: Event,
        now: Timestamp,
    ) -> Result<Changed> {
        let realm = realm_of(partner);
        let changed =
            self.change(move |conn| Box::pin(async move { change(conn, &realm, &id, changes, event, now).await }));
        match changed.await {
            Err(StoreError::Refused(users::EMAIL_TAKEN)) => Ok(Changed::EmailTaken),
            other => other,
        }
    }
}

async fn register(conn: &mut Conn, new: &NewPartnerUser, now: Timestamp) -> Result<()> {
    if let Some(answer) = &new.answer {
        idempotency::remember(conn, answer, now).await?;
    }
    if let Some(line) = &new.line {
        imports::finish(conn, line, Ok(&new.user.id)).await?;
    }
    users::insert(conn, &new.user, now).await?;
    if let Some(key) = &new.key {
        api_keys::insert(conn, key).await?;
    }
    onboardings::insert(conn, &new.onboarding).await?;
    if let Some(mail) = &new.mail {
        outbox::enqueue(conn, mail, now).await?;
    }
    events::insert_all(conn, &new.events).await
}

async fn change(
    conn: &mut Conn,
    realm: &str,
    id: &UserId,
    changes: Changes,
    event: Event,
    now: Timestamp,
) -> Result<Changed> {
    // Locked first, so that of two changes neither undoes what the other did.
    let held = sqlx::query("UPDATE users SET realm = realm WHERE id = $1 AND realm = $2")
        .bind(id.as_str())
        .bind(realm)
        .execute(&mut *conn)
        .await?;
    if held.rows_affected() == 0 {
        return Ok(Changed::NotThere);
    }
    let sql = concat!("SELECT ", user_columns!(), " FROM users u WHERE u.id = $1");
    let user = read(&sqlx::query(sql).bind(id.as_str()).fetch_one(&mut *conn).await?)?;
    let mut claims = user.claims.clone();
    set(&mut claims, "name", changes.name);
    set(&mut claims, "locale", changes.locale);
    let email = changes.email.filter(|email| user.email.as_ref() != Some(email));
    // Their names and no more: what somebody is called is no concern of the trail.
    let claims_changed = ["name", "locale"].into_iter().filter(|name| claims.get(*name) != user.claims.get(*name));
    let changed: Vec<&str> = claims_changed.chain(email.is_some().then_some("email")).collect();
    if claims == user.claims && email.is_none() {
        return Ok(Changed::Same);
    }
    sqlx::query("UPDATE users SET claims = $2, updated_at = $3 WHERE id = $1")
        .bind(id.as_str())
        .bind(to_json("user", &claims)?)
        .bind(now.millis())
        .execute(&mut *conn)
        .await?;
    if let Some(email) = email {
        change_email(conn, realm, id, &email).await?;
    }
    events::insert(conn, &event.with("changed", changed)).await?;
    Ok(Changed::Yes)
}

fn set(claims: &mut serde_json::Map<String, serde_json::Value>, name: &str, change: Change) {
    match change {
        None => {}
        Some(None) => {
            claims.shift_remove(name);
        }
        Some(Some(value)) => {
            claims.insert(name.to_owned(), value.into());
        }
    }
}

async fn change_email(conn: &mut Conn, realm: &str, id: &UserId, email: &str) -> Result<()> {
    // The new one before the old one is let go: two people who swap theirs are refused, and do not wait for each other.
    if !users::take_name(conn, realm, "email", email, id).await? {
        return Err(StoreError::Refused(users::EMAIL_TAKEN));
    }
    sqlx::query("DELETE FROM identifiers WHERE user_id = $1 AND kind = 'email' AND value <> $2")
        .bind(id.as_str())
        .bind(email)
        .execute(&mut *conn)
        .await?;
    sqlx::query("UPDATE users SET email = $2, email_verified = 0 WHERE id = $1")
        .bind(id.as_str())
        .bind(email)
        .execute(&mut *conn)
        .await?;
    // A letter that has not left yet goes to where they are now.
    sqlx::query(
        "UPDATE outbox SET recipient = $2 WHERE state <> 'sent'
             AND onboarding_id IN (SELECT id FROM onboardings WHERE user_id = $1)",
    )
    .bind(id.as_str())
    .bind(email)
    .execute(conn)
    .await?;
    Ok(())
}
