//! Lists come in pages: `limit` says how long, `cursor` where the page before ended.

use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use crate::http::problem::Problem;
use crate::protocol::params::Params;
use crate::protocol::time::Timestamp;

const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 100;

/// One page of a list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code)] // Read from the query by `Asked`, which says more of what is wrong.
pub struct Page {
    /// How many at most.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<i64>,
    /// Where the page before ended.
    cursor: Option<String>,
}

/// A list as it is answered.
#[derive(Serialize, ToSchema)]
pub struct List<T> {
    pub items: Vec<T>,
    /// The `cursor` of the next page; `null` on the last one.
    pub next_cursor: Option<String>,
}

/// Which page is asked for.
pub struct Asked<'a> {
    pub limit: i64,
    pub cursor: Option<&'a str>,
}

impl<'a> Asked<'a> {
    pub fn of(query: &'a Params) -> Result<Self, Problem> {
        let limit = match query.get("limit") {
            None => DEFAULT_LIMIT,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=MAX_LIMIT).contains(limit))
                .ok_or_else(|| Problem::invalid_request(format!("limit is a number from 1 to {MAX_LIMIT}")))?,
        };
        Ok(Self { limit, cursor: query.get("cursor") })
    }

    /// The cursor of a list in the order of time: when the last one of the page before was made, and its id.
    pub fn moment(&self) -> Result<Option<(Timestamp, &'a str)>, Problem> {
        let Some(cursor) = self.cursor else { return Ok(None) };
        let parts = cursor.split_once('.').and_then(|(at, id)| Some((Timestamp::from_millis(at.parse().ok()?), id)));
        parts.map(Some).ok_or_else(|| Problem::invalid_request("cursor is none that we gave out"))
    }

    /// How many to read: one more tells whether there is another page.
    pub const fn to_read(&self) -> i64 {
        self.limit + 1
    }

    /// The page out of what was read.
    pub fn list<S, T>(&self, mut read: Vec<S>, cursor: impl Fn(&S) -> String, item: impl Fn(&S) -> T) -> List<T> {
        let more = i64::try_from(read.len()).is_ok_and(|found| found > self.limit);
        if more {
            read.pop();
        }
        let next_cursor = read.last().filter(|_| more).map(cursor);
        List { items: read.iter().map(item).collect(), next_cursor }
    }
}

/// A cursor that [`Asked::moment`] reads.
pub fn moment_cursor(at: Timestamp, id: &str) -> String {
    format!("{}.{id}", at.millis())
}
