//! People and what they sign in with. How they are made is `creation.rs`, their passwords are `passwords.rs`.

mod creation;
mod passwords;

use sqlx::any::AnyRow;

use super::db::Conn;
use super::events::{self, Event};
use super::{Result, Store, column, from_json, onboardings, to_json};
use crate::crypto::secret::Secret;
use crate::protocol::ids::{ClientId, UserId};
use crate::protocol::time::Timestamp;
use crate::protocol::user::{LoginName, User};

pub use creation::{Created, NewUser};
pub(in crate::store) use creation::{
    EMAIL_TAKEN, EXTERNAL_ID_TAKEN, ID_TAKEN, claim_subject, insert, refused, take_name, try_subject,
};
pub use passwords::StoredPassword;
pub(in crate::store) use passwords::hold_password;

/// The realm of people who sign in on our own pages.
pub const REALM_DIRECT: &str = "direct";
/// What stands before a partner's id in the name of its realm.
const PARTNER_PREFIX: &str = "partner:";
/// `disabled_by` of whom their partner switched off.
const BY_PARTNER: &str = "partner";

/// The realm of a partner's people. No partner can be called so that it is ours.
pub(in crate::store) fn realm_of(partner: &ClientId) -> String {
    format!("{PARTNER_PREFIX}{partner}")
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
pub(in crate::store) use user_columns;

pub(in crate::store) fn read(row: &AnyRow) -> Result<User> {
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
                 UNION SELECT o.id FROM users o WHERE o.realm = $1 AND o.id = $4)"
        );
        // Nobody's name is empty.
        let [id, username, email] = [id.map(UserId::as_str), username, email].map(|name| name.unwrap_or("").to_owned());
        // First, so that whoever is made between the two questions is not an id without a person.
        let given = "SELECT id FROM subjects WHERE id = $1";
        let id_given = !id.is_empty() && self.db.row(|| sqlx::query(given).bind(id.clone())).await?.is_some();
        let statement =
            || sqlx::query(sql).bind(REALM_DIRECT).bind(username.clone()).bind(email.clone()).bind(id.clone());
        let mut people = self.db.rows(statement).await?.iter().map(read).collect::<Result<Vec<_>>>()?;
        // Not by the statement: an index has everybody in this order, and would be walked for it.
        people.sort_by(|one, other| one.id.as_str().cmp(other.id.as_str()));
        Ok(Namesakes { people, id_given })
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
                        crate::store::sessions::end_all_of_user(conn, &id).await?;
                        crate::store::grants::revoke_all_of_user(conn, &id, "user_disabled", now).await?;
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

/// Locks an active person's row until the transaction ends; `false` where there is none.
pub(in crate::store) async fn hold(conn: &mut Conn, id: &UserId) -> Result<bool> {
    let done = sqlx::query("UPDATE users SET realm = realm WHERE id = $1 AND disabled_at IS NULL")
        .bind(id.as_str())
        .execute(conn)
        .await?;
    Ok(done.rows_affected() > 0)
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
