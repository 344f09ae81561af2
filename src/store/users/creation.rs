//! Making people. The database decides whose an id or a name is.

use serde_json::{Map, Value};

use super::passwords::store_hash;
use super::{REALM_DIRECT, realm_of};
use crate::crypto::secret::Secret;
use crate::protocol::ids::{ClientId, UserId};
use crate::protocol::time::Timestamp;
use crate::protocol::user::User;
use crate::store::db::Conn;
use crate::store::events::{self, Event};
use crate::store::{Result, Store, StoreError, to_json};

/// A person to create. Names are canonical already.
#[derive(Clone, Debug)]
pub struct NewUser {
    pub id: UserId,
    /// The partner whose person it is, with its own id for them.
    pub of_partner: Option<(ClientId, String)>,
    pub username: Option<String>,
    pub email: Option<String>,
    pub email_verified: bool,
    pub claims: Map<String, Value>,
    pub roles: Vec<String>,
    pub groups: Vec<String>,
    /// A PHC string, or as the system spelled it that the person comes from.
    pub password_hash: Option<Secret<String>>,
    pub disabled_at: Option<Timestamp>,
}

impl NewUser {
    /// As they will be read once they are written at that time.
    pub fn as_user(&self, now: Timestamp) -> User {
        let (partner, external_id) = self.of_partner.clone().unzip();
        User {
            id: self.id.clone(),
            username: self.username.clone(),
            email: self.email.clone(),
            email_verified: self.email_verified,
            claims: self.claims.clone(),
            roles: self.roles.clone(),
            groups: self.groups.clone(),
            partner,
            external_id,
            disabled_at: self.disabled_at,
            updated_at: now,
        }
    }
}

/// What creating a person came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    Yes,
    /// As somebody's `sub`, or as a client's id; now or before.
    IdTaken,
    UsernameTaken,
    EmailTaken,
}

impl Store {
    /// Creates a person; the database decides whose name it is.
    pub async fn create_user(&self, user: NewUser, event: Event, now: Timestamp) -> Result<Created> {
        // Nobody has cached anything about a person who was not there.
        let written = self.db.write(move |conn| {
            Box::pin(async move {
                insert(conn, &user, now).await?;
                events::insert(conn, &event.of_user(&user.id)).await
            })
        });
        match written.await {
            Err(StoreError::Refused(why)) => refused(why),
            other => other.map(|()| Created::Yes),
        }
    }

    /// Creates many people in one transaction; whoever cannot be made leaves the others be.
    pub async fn create_users(&self, users: Vec<(NewUser, Event)>, now: Timestamp) -> Result<Vec<Created>> {
        let created = self.db.write(move |conn| {
            Box::pin(async move {
                let mut created = Vec::with_capacity(users.len());
                let mut told = Vec::with_capacity(users.len());
                for (user, event) in users {
                    created.push(match insert(conn, &user, now).await {
                        Ok(()) => {
                            told.push(event.of_user(&user.id));
                            Created::Yes
                        }
                        Err(StoreError::Refused(why)) => {
                            if why != ID_TAKEN {
                                take_back(conn, &user.id).await?;
                            }
                            refused(why)?
                        }
                        Err(error) => return Err(error),
                    });
                }
                events::insert_all(conn, &told).await?;
                Ok(created)
            })
        });
        created.await
    }
}

pub(in crate::store) const ID_TAKEN: &str = "id taken";
const USERNAME_TAKEN: &str = "username taken";
pub(in crate::store) const EMAIL_TAKEN: &str = "email taken";
/// The partner has somebody by this id.
pub(in crate::store) const EXTERNAL_ID_TAKEN: &str = "external id taken";

pub(in crate::store) fn refused(why: &'static str) -> Result<Created> {
    match why {
        ID_TAKEN => Ok(Created::IdTaken),
        USERNAME_TAKEN => Ok(Created::UsernameTaken),
        EMAIL_TAKEN => Ok(Created::EmailTaken),
        other => Err(StoreError::Refused(other)),
    }
}

/// Writes a person; refuses where the id or a name is taken, by then with a part of them written.
pub(in crate::store) async fn insert(conn: &mut Conn, user: &NewUser, now: Timestamp) -> Result<()> {
    // Not by the error of a unique key, which would end PostgreSQL's transaction for whoever comes behind.
    let claimed = sqlx::query("INSERT INTO subjects (id, kind) VALUES ($1, 'user') ON CONFLICT DO NOTHING")
        .bind(user.id.as_str())
        .execute(&mut *conn)
        .await?;
    if claimed.rows_affected() == 0 {
        return Err(StoreError::Refused(ID_TAKEN));
    }
    let realm = user.of_partner.as_ref().map_or_else(|| REALM_DIRECT.to_owned(), |(partner, _)| realm_of(partner));
    let written = sqlx::query(
        "INSERT INTO users (id, realm, username, email, email_verified, claims, roles, groups, created_at, updated_at,
             disabled_at, external_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $11) ON CONFLICT DO NOTHING",
    )
    .bind(user.id.as_str())
    .bind(realm.as_str())
    .bind(user.username.as_deref())
    .bind(user.email.as_deref())
    .bind(i64::from(user.email_verified))
    .bind(to_json("user", &user.claims)?)
    .bind(to_json("user", &user.roles)?)
    .bind(to_json("user", &user.groups)?)
    .bind(now.millis())
    .bind(user.disabled_at.map(Timestamp::millis))
    .bind(user.of_partner.as_ref().map(|(_, external_id)| external_id.as_str()))
    .execute(&mut *conn)
    .await?;
    if written.rows_affected() == 0 {
        return Err(StoreError::Refused(EXTERNAL_ID_TAKEN));
    }
    let names = [("username", &user.username, USERNAME_TAKEN), ("email", &user.email, EMAIL_TAKEN)];
    for (kind, value, taken) in names {
        let Some(value) = value else { continue };
        if !take_name(conn, &realm, kind, value, &user.id).await? {
            return Err(StoreError::Refused(taken));
        }
    }
    if let Some(hash) = &user.password_hash {
        store_hash(conn, &user.id, hash, now).await?;
    }
    Ok(())
}

/// Takes a name in a realm; `false` where somebody has it.
pub(in crate::store) async fn take_name(
    conn: &mut Conn,
    realm: &str,
    kind: &'static str,
    value: &str,
    id: &UserId,
) -> Result<bool> {
    let done = sqlx::query(
        "INSERT INTO identifiers (realm, kind, value, user_id) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
    )
    .bind(realm)
    .bind(kind)
    .bind(value)
    .bind(id.as_str())
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Removes what [`insert`] wrote of somebody in this transaction; not even the id was given then.
async fn take_back(conn: &mut Conn, id: &UserId) -> Result<()> {
    for sql in ["DELETE FROM users WHERE id = $1", "DELETE FROM subjects WHERE id = $1"] {
        sqlx::query(sql).bind(id.as_str()).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Reserves a `sub` for ever.
///
/// # Errors
/// `Conflict` where it was given before.
pub(in crate::store) async fn claim_subject(conn: &mut Conn, id: &str, kind: &'static str) -> Result<()> {
    sqlx::query("INSERT INTO subjects (id, kind) VALUES ($1, $2)").bind(id).bind(kind).execute(conn).await?;
    Ok(())
}

/// The same; `false` where it was given before, by a transaction that has committed.
pub(in crate::store) async fn try_subject(conn: &mut Conn, id: &str, kind: &'static str) -> Result<bool> {
    let done = sqlx::query("INSERT INTO subjects (id, kind) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(id)
        .bind(kind)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() > 0)
}
