//! People, what they sign in with, and their password hashes.

use serde_json::{Map, Value};
use sqlx::any::AnyRow;

use super::db::Conn;
use super::events::{self, Event};
use super::{Result, Store, StoreError, column, from_json, onboardings, to_json};
use crate::crypto::secret::Secret;
use crate::protocol::ids::{ClientId, UserId};
use crate::protocol::time::Timestamp;
use crate::protocol::user::{LoginName, User};

/// The realm of people who sign in on our own pages.
pub const REALM_DIRECT: &str = "direct";
/// What stands before a partner's id in the name of its realm.
const PARTNER_PREFIX: &str = "partner:";
/// `disabled_by` of whom their partner switched off.
const BY_PARTNER: &str = "partner";

/// The realm of a partner's people. No partner can be called so that it is ours.
pub(super) fn realm_of(partner: &ClientId) -> String {
    format!("{PARTNER_PREFIX}{partner}")
}

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

/// A password as it is kept.
#[derive(Clone, Debug)]
pub struct StoredPassword {
    /// A PHC string, or as the system spelled it that the person comes from.
    pub hash: Secret<String>,
    /// What names it: the same password may get a new hash, and keeps this.
    pub set_at: Timestamp,
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

/// Who goes by a name or an id already.
#[derive(Clone, Debug)]
pub struct Namesakes {
    /// Nobody twice.
    pub people: Vec<User>,
    /// The id was given before, to a person or to a client.
    pub id_given: bool,
}

/// The columns that [`read`] wants, of `users` as `u`.
macro_rules! user_columns {
    () => {
        "u.id AS user_id, u.username, u.email, u.email_verified, u.claims AS user_claims, \
         u.roles, u.groups, u.realm, u.external_id, u.disabled_at AS user_disabled_at, u.updated_at AS user_updated_at"
    };
}
pub(super) use user_columns;

pub(super) fn read(row: &AnyRow) -> Result<User> {
    let disabled_at: Option<i64> = column(row, "user_disabled_at")?;
    Ok(User {
        id: UserId::new(column::<String>(row, "user_id")?),
        username: column(row, "username")?,
        email: column(row, "email")?,
        email_verified: column::<i64>(row, "email_verified")? != 0,
        claims: from_json("user", column(row, "user_claims")?)?,
        roles: from_json("user", column(row, "roles")?)?,
        groups: from_json("user", column(row, "groups")?)?,
        partner: column::<&str>(row, "realm")?.strip_prefix(PARTNER_PREFIX).map(ClientId::new),
        external_id: column(row, "external_id")?,
        disabled_at: disabled_at.map(Timestamp),
        updated_at: Timestamp(column(row, "user_updated_at")?),
    })
}

/// Reserves a `sub` for ever.
///
/// # Errors
/// `Conflict` where it was given before.
pub(super) async fn claim_subject(conn: &mut Conn, id: &str, kind: &'static str) -> Result<()> {
    sqlx::query("INSERT INTO subjects (id, kind) VALUES ($1, $2)").bind(id).bind(kind).execute(conn).await?;
    Ok(())
}

/// The same; `false` where it was given before, by a transaction that has committed.
pub(super) async fn try_subject(conn: &mut Conn, id: &str, kind: &'static str) -> Result<bool> {
    let done = sqlx::query("INSERT INTO subjects (id, kind) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(id)
        .bind(kind)
        .execute(conn)
        .await?;
    Ok(done.rows_affected() > 0)
}

impl Store {
    pub async fn user(&self, id: &UserId) -> Result<Option<User>> {
        let sql = concat!("SELECT ", user_columns!(), " FROM users u WHERE u.id = $1");
        let row = self.db.row(|| sqlx::query(sql).bind(id.as_str().to_owned())).await?;
        row.as_ref().map(read).transpose()
    }

    /// The person that a login name means in a realm, with their password if they have one.
    pub async fn user_by_login(
        &self,
        realm: &'static str,
        name: &LoginName,
    ) -> Result<Option<(User, Option<StoredPassword>)>> {
        let sql = concat!(
            "SELECT ",
            user_columns!(),
            ", p.hash, p.updated_at AS password_set_at FROM identifiers i JOIN users u ON u.id = i.user_id
             LEFT JOIN passwords p ON p.user_id = u.id WHERE i.realm = $1 AND i.kind = $2 AND i.value = $3"
        );
        let (kind, value) = name.identifier();
        let row = self.db.row(|| sqlx::query(sql).bind(realm).bind(kind).bind(value.to_owned())).await?;
        let Some(row) = row else { return Ok(None) };
        let hash: Option<String> = column(&row, "hash")?;
        let set_at: Option<i64> = column(&row, "password_set_at")?;
        let password = hash.zip(set_at);
        let password = password.map(|(hash, at)| StoredPassword { hash: Secret::new(hash), set_at: Timestamp(at) });
        Ok(Some((read(&row)?, password)))
    }

    /// Up to `limit` people in the order of their creation, after the one with id `after`.
    pub async fn users(&self, after: Option<&UserId>, limit: i64) -> Result<Vec<User>> {
        let sql = concat!(
            "SELECT ",
            user_columns!(),
            " FROM users u
             WHERE $1 = '' OR (u.created_at, u.id) > (SELECT c.created_at, c.id FROM users c WHERE c.id = $1)
             ORDER BY u.created_at, u.id LIMIT $2"
        );
        let after = after.map_or("", UserId::as_str).to_owned();
        self.db.rows(|| sqlx::query(sql).bind(after.clone()).bind(limit)).await?.iter().map(read).collect()
    }

    /// The people of the direct realm who go by any of these.
    pub async fn namesakes(
        &self,
        id: Option<&UserId>,
        username: Option<&str>,
        email: Option<&str>,
    ) -> Result<Namesakes> {
        let sql = concat!(
            "SELECT ",
            user_columns!(),
            " FROM users u WHERE u.id IN (
                 SELECT i.user_id FROM identifiers i WHERE i.realm = $1 AND i.kind = 'username' AND i.value = $2
                 UNION SELECT i.user_id FROM identifiers i WHERE i.realm = $1 AND i.kind = 'email' AND i.value = $3
                 UNION SELECT o.id FROM users o WHERE o.realm = $1 AND o.id = $4)
             ORDER BY u.id"
        );
        // Nobody's name is empty.
        let [id, username, email] = [id.map(UserId::as_str), username, email].map(|name| name.unwrap_or("").to_owned());
        // First, so that whoever is made between the two questions is not an id without a person.
        let given = "SELECT id FROM subjects WHERE id = $1";
        let id_given = !id.is_empty() && self.db.row(|| sqlx::query(given).bind(id.clone())).await?.is_some();
        let statement =
            || sqlx::query(sql).bind(REALM_DIRECT).bind(username.clone()).bind(email.clone()).bind(id.clone());
        let people = self.db.rows(statement).await?.iter().map(read).collect::<Result<Vec<_>>>()?;
        Ok(Namesakes { people, id_given })
    }

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

    /// Sets the password and ends all that the old one opened: sessions and grants. `false` where there is no such
    /// person.
    pub async fn set_password(&self, id: UserId, hash: Secret<String>, event: Event, now: Timestamp) -> Result<bool> {
        self.change(move |conn| {
            Box::pin(async move {
                if !touch(conn, &id, now).await? {
                    return Ok(false);
                }
                store_hash(conn, &id, &hash, now).await?;
                super::sessions::end_all_of_user(conn, &id).await?;
                super::grants::revoke_all_of_user(conn, &id, "password_changed", now).await?;
                events::insert(conn, &event).await?;
                Ok(true)
            })
        })
        .await
    }

    /// Replaces the hash of an unchanged password by one of today's cost.
    pub async fn upgrade_password_hash(&self, id: UserId, old: Secret<String>, new: Secret<String>) -> Result<()> {
        // Only where the old hash still stands: a password that was changed meanwhile stays changed.
        let sql = "UPDATE passwords SET hash = $3 WHERE user_id = $1 AND hash = $2";
        let statement = move || {
            let statement = sqlx::query(sql).bind(id.as_str().to_owned());
            statement.bind(old.expose().clone()).bind(new.expose().clone())
        };
        self.db.execute(statement).await?;
        Ok(())
    }

    /// Disables (`Some`) or enables a person. Disabling ends their sessions and grants. Whoever was so before by the
    /// same word stays it without an event.
    pub async fn set_user_disabled(
        &self,
        id: UserId,
        disabled_at: Option<Timestamp>,
        event: Event,
        now: Timestamp,
    ) -> Result<bool> {
        self.set_disabled(id, disabled_at, None, event, now).await
    }

    /// The same by the partner whose person it is. `false` where an operator has done so before, which stays.
    pub async fn set_user_disabled_by_partner(
        &self,
        id: UserId,
        disabled_at: Option<Timestamp>,
        event: Event,
        now: Timestamp,
    ) -> Result<bool> {
        self.set_disabled(id, disabled_at, Some(BY_PARTNER), event, now).await
    }

    async fn set_disabled(
        &self,
        id: UserId,
        disabled_at: Option<Timestamp>,
        by: Option<&'static str>,
        event: Event,
        now: Timestamp,
    ) -> Result<bool> {
        self.change_if(
            |done| *done,
            move |conn| {
                Box::pin(async move {
                    let changes = switches(conn, &id, disabled_at.is_some(), by).await?;
                    let done = sqlx::query(
                        "UPDATE users SET disabled_at = $2, disabled_by = $3, updated_at = $4
                     WHERE id = $1 AND ($3 IS NULL OR disabled_at IS NULL OR disabled_by = $3)",
                    )
                    .bind(id.as_str())
                    .bind(disabled_at.map(Timestamp::millis))
                    .bind(by)
                    .bind(now.millis())
                    .execute(&mut *conn)
                    .await?;
                    if done.rows_affected() > 0 && disabled_at.is_some() {
                        super::sessions::end_all_of_user(conn, &id).await?;
                        super::grants::revoke_all_of_user(conn, &id, "user_disabled", now).await?;
                    }
                    if done.rows_affected() > 0 && changes {
                        events::insert(conn, &event).await?;
                    }
                    Ok(done.rows_affected() > 0)
                })
            },
        )
        .await
    }

    /// Sets what a person may do, and where they belong; `None` leaves it as it is. `false` where there is no such
    /// person.
    pub async fn set_roles(
        &self,
        id: UserId,
        roles: Option<Vec<String>>,
        groups: Option<Vec<String>>,
        event: Event,
        now: Timestamp,
    ) -> Result<bool> {
        let roles = roles.map(|roles| to_json("user", &roles)).transpose()?;
        let groups = groups.map(|groups| to_json("user", &groups)).transpose()?;
        self.change(move |conn| {
            Box::pin(async move {
                let changed = sqlx::query(
                    "UPDATE users SET roles = COALESCE($2, roles), groups = COALESCE($3, groups), updated_at = $4
                     WHERE id = $1 AND (roles <> COALESCE($2, roles) OR groups <> COALESCE($3, groups))",
                )
                .bind(id.as_str())
                .bind(roles)
                .bind(groups)
                .bind(now.millis())
                .execute(&mut *conn)
                .await?;
                if changed.rows_affected() > 0 {
                    events::insert(conn, &event).await?;
                    return Ok(true);
                }
                let same = sqlx::query("SELECT id FROM users WHERE id = $1").bind(id.as_str());
                Ok(same.fetch_optional(conn).await?.is_some())
            })
        })
        .await
    }

    /// Forgets a person with everything that is theirs; the `sub` stays taken, and what was mailed still counts for the
    /// address it went to.
    pub async fn delete_user(&self, id: UserId, event: Event) -> Result<bool> {
        self.change(move |conn| {
            Box::pin(async move {
                onboardings::drop_mail_of(conn, &id).await?;
                let done = sqlx::query("DELETE FROM users WHERE id = $1").bind(id.as_str()).execute(&mut *conn).await?;
                if done.rows_affected() > 0 {
                    events::insert(conn, &event).await?;
                }
                Ok(done.rows_affected() > 0)
            })
        })
        .await
    }
}

/// Locks a person and their password until the transaction ends; `false` where the person is disabled or the
/// password is another by now.
pub(super) async fn hold_password(conn: &mut Conn, id: &UserId, set_at: Timestamp) -> Result<bool> {
    if !hold(conn, id).await? {
        return Ok(false);
    }
    let unchanged = sqlx::query("UPDATE passwords SET hash = hash WHERE user_id = $1 AND updated_at = $2")
        .bind(id.as_str())
        .bind(set_at.millis())
        .execute(conn)
        .await?;
    Ok(unchanged.rows_affected() > 0)
}

/// Locks an active person's row until the transaction ends; `false` where there is none.
pub(super) async fn hold(conn: &mut Conn, id: &UserId) -> Result<bool> {
    let done = sqlx::query("UPDATE users SET realm = realm WHERE id = $1 AND disabled_at IS NULL")
        .bind(id.as_str())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() > 0)
}

pub(super) const ID_TAKEN: &str = "id taken";
const USERNAME_TAKEN: &str = "username taken";
pub(super) const EMAIL_TAKEN: &str = "email taken";
/// The partner has somebody by this id.
pub(super) const EXTERNAL_ID_TAKEN: &str = "external id taken";

pub(super) fn refused(why: &'static str) -> Result<Created> {
    match why {
        ID_TAKEN => Ok(Created::IdTaken),
        USERNAME_TAKEN => Ok(Created::UsernameTaken),
        EMAIL_TAKEN => Ok(Created::EmailTaken),
        other => Err(StoreError::Refused(other)),
    }
}

/// Writes a person; refuses where the id or a name is taken, by then with a part of them written.
pub(super) async fn insert(conn: &mut Conn, user: &NewUser, now: Timestamp) -> Result<()> {
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
pub(super) async fn take_name(
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

/// Locks a person until the transaction ends; whether they are not so yet, or by somebody else's word.
async fn switches(conn: &mut Conn, id: &UserId, disabled: bool, by: Option<&'static str>) -> Result<bool> {
    sqlx::query("UPDATE users SET realm = realm WHERE id = $1").bind(id.as_str()).execute(&mut *conn).await?;
    let sql = "SELECT disabled_at, disabled_by FROM users WHERE id = $1";
    let Some(row) = sqlx::query(sql).bind(id.as_str()).fetch_optional(conn).await? else { return Ok(false) };
    let was_disabled = column::<Option<i64>>(&row, "disabled_at")?.is_some();
    let was_by: Option<String> = column(&row, "disabled_by")?;
    Ok(was_disabled != disabled || disabled && was_by.as_deref() != by)
}

async fn touch(conn: &mut Conn, id: &UserId, now: Timestamp) -> Result<bool> {
    let done = sqlx::query("UPDATE users SET updated_at = $2 WHERE id = $1")
        .bind(id.as_str())
        .bind(now.millis())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// No two passwords of a person are set at the same time, whatever the clock says: it tells the one from the other.
async fn store_hash(conn: &mut Conn, id: &UserId, hash: &Secret<String>, now: Timestamp) -> Result<()> {
    sqlx::query(
        "INSERT INTO passwords (user_id, hash, updated_at) VALUES ($1, $2, $3)
         ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash, updated_at = CASE
             WHEN excluded.updated_at > passwords.updated_at THEN excluded.updated_at
             ELSE passwords.updated_at + 1 END",
    )
    .bind(id.as_str())
    .bind(hash.expose())
    .bind(now.millis())
    .execute(conn)
    .await?;
    Ok(())
}
