//! Finding events again, the newest first.

use std::net::IpAddr;

use serde_json::{Map, Value};
use sqlx::AssertSqlSafe;
use sqlx::any::AnyRow;

use super::EventKind;
use crate::protocol::ids::{ClientId, UserId};
use crate::protocol::time::Timestamp;
use crate::store::{Result, Store, column, from_json};

/// Which events; each condition narrows the others.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub user_id: Option<UserId>,
    pub client_id: Option<ClientId>,
    /// Any of them; none stands for all.
    pub kinds: Vec<EventKind>,
    pub address: Option<IpAddr>,
    /// Then or later.
    pub since: Option<Timestamp>,
    /// Earlier than this.
    pub until: Option<Timestamp>,
    /// Those that a list shows after this one.
    pub before: Option<Position>,
}

/// Where an event stands in the order of all.
#[derive(Clone, Debug)]
pub struct Position {
    pub at: Timestamp,
    pub id: String,
}

/// An event as an operator sees it.
#[derive(Clone, Debug)]
pub struct ListedEvent {
    pub id: String,
    pub at: Timestamp,
    /// Of a newer release perhaps, whose kinds this one does not know.
    pub kind: String,
    pub user_id: Option<UserId>,
    /// What the person is called now; `None` once they are deleted.
    pub username: Option<String>,
    pub email: Option<String>,
    pub client_id: Option<ClientId>,
    pub address: Option<String>,
    pub detail: Map<String, Value>,
}

fn read(row: &AnyRow) -> Result<ListedEvent> {
    Ok(ListedEvent {
        id: column(row, "id")?,
        at: Timestamp(column(row, "at")?),
        kind: column(row, "kind")?,
        user_id: column::<Option<String>>(row, "user_id")?.map(UserId::new),
        username: column(row, "username")?,
        email: column(row, "email")?,
        client_id: column::<Option<String>>(row, "client_id")?.map(ClientId::new),
        address: column(row, "address")?,
        detail: from_json("event", column(row, "detail")?)?,
    })
}

#[derive(Clone)]
enum Bound {
    Text(String),
    Number(i64),
}

/// Only the conditions that there are, so that an index answers them.
#[derive(Default)]
struct Conditions {
    sql: Vec<String>,
    bound: Vec<Bound>,
}

impl Conditions {
    fn of(filter: &Filter) -> Self {
        let mut all = Self::default();
        for (column, value) in [
            ("e.user_id", filter.user_id.as_ref().map(|id| id.as_str().to_owned())),
            ("e.client_id", filter.client_id.as_ref().map(|id| id.as_str().to_owned())),
            ("e.address", filter.address.map(|address| address.to_string())),
        ] {
            if let Some(value) = value {
                let name = all.bind(Bound::Text(value));
                all.sql.push(format!("{column} = {name}"));
            }
        }
        if !filter.kinds.is_empty() {
            let names: Vec<String> =
                filter.kinds.iter().map(|kind| all.bind(Bound::Text(kind.as_str().to_owned()))).collect();
            all.sql.push(format!("e.kind IN ({})", names.join(", ")));
        }
        for (comparison, at) in [(">=", filter.since), ("<", filter.until)] {
            if let Some(at) = at {
                let name = all.bind(Bound::Number(at.millis()));
                all.sql.push(format!("e.at {comparison} {name}"));
            }
        }
        if let Some(Position { at, id }) = &filter.before {
            let (at, id) = (all.bind(Bound::Number(at.millis())), all.bind(Bound::Text(id.clone())));
            all.sql.push(format!("(e.at, e.id) < ({at}, {id})"));
        }
        all
    }

    /// Its name in the statement.
    fn bind(&mut self, value: Bound) -> String {
        self.bound.push(value);
        format!("${}", self.bound.len())
    }
}

impl Store {
    /// Up to `limit` events, the newest first.
    pub async fn events(&self, filter: &Filter, limit: i64) -> Result<Vec<ListedEvent>> {
        let mut conditions = Conditions::of(filter);
        let limit = conditions.bind(Bound::Number(limit));
        let Conditions { sql, bound } = conditions;
        let only = if sql.is_empty() { String::new() } else { format!("WHERE {}", sql.join(" AND ")) };
        let sql = format!(
            "SELECT e.id, e.at, e.kind, e.user_id, u.username, u.email, e.client_id, e.address, e.detail
             FROM events e LEFT JOIN users u ON u.id = e.user_id {only} ORDER BY e.at DESC, e.id DESC LIMIT {limit}"
        );
        let statement = || {
            bound.iter().cloned().fold(sqlx::query(AssertSqlSafe(sql.clone())), |statement, value| match value {
                Bound::Text(text) => statement.bind(text),
                Bound::Number(number) => statement.bind(number),
            })
        };
        self.db.rows(statement).await?.iter().map(read).collect()
    }

    /// Where an event stands; `None` where there is none, or none any more.
    pub async fn event_position(&self, id: &str) -> Result<Option<Position>> {
        let row = self.db.row(|| sqlx::query("SELECT at FROM events WHERE id = $1").bind(id.to_owned())).await?;
        let at = row.map(|row| column(&row, "at")).transpose()?.map(Timestamp);
        Ok(at.map(|at| Position { at, id: id.to_owned() }))
    }
}
