//! `keyward event`: the audit trail.

use std::net::IpAddr;

use anyhow::{Context as _, ensure};
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::output::{self, Format};
use super::progress::{READING, during};
use super::user;
use crate::app::App;
use crate::protocol::ids::{ClientId, UserId};
use crate::protocol::time::{Span, Timestamp};
use crate::store::events::{EventKind, Filter, ListedEvent};

#[derive(Subcommand)]
pub enum EventCommand {
    /// List what happened, the newest first. Each condition narrows the list.
    #[command(after_help = EXAMPLES)]
    List(ListArgs),
}

const EXAMPLES: &str = "\
Examples:
  keyward event list --user alice --since 7d
  keyward event list --kind sign_in_failed --kind sign_in_throttled --since 2h
  keyward event list --client web --kind client_changed --output json";

#[derive(Args)]
pub struct ListArgs {
    /// Only what is about this person; of somebody who was deleted, their id.
    #[arg(long, value_name = "NAME-OR-ID")]
    user: Option<String>,
    /// Only what is about this app or partner, or was done by it.
    #[arg(long, value_name = "CLIENT-ID")]
    client: Option<String>,
    /// Only events of this kind; may be repeated.
    #[arg(long = "kind", value_name = "KIND", value_parser = kinds())]
    kinds: Vec<EventKind>,
    /// Only what came from this IP address.
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Only what happened then or later: an RFC 3339 time, or how long ago, like 2h or 7d.
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    since: Option<When>,
    /// Only what happened earlier than this; written the same way.
    #[arg(long, value_name = "TIME", value_parser = parse_when)]
    until: Option<When>,
    /// How many at most.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
    /// Go on behind the event with this id.
    #[arg(long, value_name = "EVENT-ID")]
    before: Option<String>,
}

fn kinds() -> impl clap::builder::TypedValueParser<Value = EventKind> {
    let names = PossibleValuesParser::new(EventKind::ALL.iter().map(|kind| kind.as_str()));
    names.try_map(|name| name.parse::<EventKind>().map_err(|()| "no such kind"))
}

#[derive(Clone, Copy)]
enum When {
    At(Timestamp),
    Ago(Span),
}

impl When {
    fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Ago(span) => now - span,
        }
    }
}

fn parse_when(text: &str) -> Result<When, String> {
    if let Ok(span) = text.parse() {
        return Ok(When::Ago(span));
    }
    let at = text.parse().map(When::At);
    at.map_err(|_| "write a time like 2027-01-15T08:00:00Z, or how long ago, like 2h or 7d".to_owned())
}

pub async fn run(command: EventCommand, app: &App, format: Format) -> anyhow::Result<()> {
    match command {
        EventCommand::List(args) => list(app, format, args).await,
    }
}

async fn list(app: &App, format: Format, args: ListArgs) -> anyhow::Result<()> {
    let now = app.now();
    let user_id = match args.user {
        Some(name) => Some(person(app, &name).await?),
        None => None,
    };
    let client_id = match args.client {
        Some(id) => Some(client(app, &id).await?),
        None => None,
    };
    let before = match args.before {
        Some(id) => {
            let position = app.store.event_position(&id).await?;
            Some(position.with_context(|| format!("there is no event `{id}`, or not any more"))?)
        }
        None => None,
    };
    let filter = Filter {
        user_id,
        client_id,
        kinds: args.kinds,
        address: args.address.map(|address| address.to_canonical()),
        since: args.since.map(|at| at.resolve(now)),
        until: args.until.map(|at| at.resolve(now)),
        before,
    };
    let events = during(READING, app.store.events(&filter, args.limit)).await?;
    let items: Vec<Value> = events.into_iter().map(|event| describe(event, format)).collect();
    output::list(format, &["at", "kind", "user", "client_id", "address", "detail", "id"], &items);
    output::earlier(&items, args.limit, "id");
    Ok(())
}

/// By name or id. Whoever was deleted has no name any more, but an id that nobody else ever gets.
async fn person(app: &App, name_or_id: &str) -> anyhow::Result<UserId> {
    let id = UserId::new(name_or_id);
    match user::find(app, name_or_id).await {
        Ok(user) if user.id != id && was_given(app, &id).await? && app.store.user(&id).await?.is_none() => {
            eprintln!("keyward: these are of the deleted person with this id; for the living one give {}", user.id);
            Ok(id)
        }
        Ok(user) => Ok(user.id),
        Err(_) if app.store.user(&id).await?.is_none() && was_given(app, &id).await? => Ok(id),
        Err(unclear) => Err(unclear),
    }
}

/// The ids of apps that were deleted are taken as well.
async fn client(app: &App, id: &str) -> anyhow::Result<ClientId> {
    let client_id = ClientId::new(id);
    let known = app.store.client(&client_id).await?.is_some() || was_given(app, &UserId::new(id)).await?;
    ensure!(known, "there is no client `{id}`, and never was; `keyward client list` shows all");
    Ok(client_id)
}

async fn was_given(app: &App, id: &UserId) -> anyhow::Result<bool> {
    Ok(app.store.namesakes(Some(id), None, None).await?.id_given)
}

fn describe(event: ListedEvent, format: Format) -> Value {
    let user_id = event.user_id.as_ref().map(UserId::as_str);
    let detail = match format {
        Format::Table => flat(&event.detail).into(),
        Format::Json => Value::Object(event.detail),
    };
    json!({
        "id": event.id,
        "at": output::time(event.at),
        "kind": event.kind,
        "user": event.username.as_deref().or(event.email.as_deref()).or(user_id),
        "user_id": user_id,
        "client_id": event.client_id,
        "address": event.address,
        "detail": detail,
    })
}

/// `by=operator key_id=…`
fn flat(detail: &Map<String, Value>) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let told = detail.iter().filter(|(_, value)| !value.is_null());
    told.map(|(name, value)| format!("{name}={}", text(value))).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_is_a_time_or_how_long_ago() {
        let now = Timestamp(1_800_000_000_000);
        for (text, expected) in [
            ("2h", Some(1_799_992_800_000)),
            ("0s", Some(1_800_000_000_000)),
            ("2027-01-15T08:00:00Z", Some(1_800_000_000_000)),
            ("2027-01-15T09:00:01+01:00", Some(1_800_000_001_000)),
            ("yesterday", None),
            ("-2h", None),
            ("", None),
        ] {
            assert_eq!(parse_when(text).ok().map(|when| when.resolve(now).millis()), expected, "{text}");
        }
    }

    #[test]
    fn a_detail_stands_on_one_line() {
        let detail = json!({ "by": "operator", "sessions": 2, "ended": ["a"], "predecessor": null });
        let Value::Object(detail) = detail else { panic!("an object") };
        assert_eq!(flat(&detail), r#"by=operator sessions=2 ended=["a"]"#);
    }
}
