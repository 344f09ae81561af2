//! `keyward session`: who is signed in, and signing them out.

use anyhow::ensure;
use clap::Subcommand;
use serde_json::{Value, json};

use super::Sure;
use super::output::{self, Format};
use super::progress::{READING, during};
use super::user;
use crate::account::sessions;
use crate::app::App;
use crate::protocol::ids::SessionId;
use crate::store::sessions::ListedSession;

#[derive(Subcommand)]
pub enum SessionCommand {
    /// List browsers that are signed in, in the order of their ids.
    List {
        /// Only those of this person.
        #[arg(long, value_name = "NAME-OR-ID")]
        user: Option<String>,
        /// How many at most.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
        /// Begin after the session with this id.
        #[arg(long, value_name = "SID")]
        after: Option<String>,
    },
    /// Sign out: end a session, or all of a person's, with the tokens that came from them.
    #[command(long_about = "Sign out: end a session, or all of a person's, with the tokens that came from them. \
                            Running providers follow within a second. Grants with offline_access live on, as after \
                            any sign-out; `keyward user set-password` and `keyward user disable` end those too.")]
    Revoke {
        /// The session's id, as `session list` and ID tokens (`sid`) have it.
        #[arg(required_unless_present = "user", conflicts_with = "user")]
        sid: Option<String>,
        /// All sessions of this person.
        #[arg(long, value_name = "NAME-OR-ID")]
        user: Option<String>,
        #[command(flatten)]
        sure: Sure,
    },
}

pub async fn run(command: SessionCommand, app: &App, format: Format) -> anyhow::Result<()> {
    match command {
        SessionCommand::List { user, limit, after } => list(app, format, user, limit, after).await,
        SessionCommand::Revoke { user: Some(name), sure, .. } => {
            let user = user::find(app, &name).await?;
            sure.ask(&format!("Sign {name} out of all browsers?"))?;
            let ended = during("signing out", sessions::end_sessions_of(app, &user.id)).await?;
            output::object(format, &json!({ "user_id": user.id, "revoked": ended }));
            Ok(())
        }
        SessionCommand::Revoke { sid, sure, .. } => {
            let sid = sid.unwrap_or_default();
            sure.ask(&format!("End session {sid}?"))?;
            let ended = during("signing out", sessions::end_session(app, SessionId::new(sid.as_str()))).await?;
            ensure!(ended, "there is no session `{sid}`; `keyward session list` shows all");
            output::object(format, &json!({ "sid": sid, "revoked": 1 }));
            Ok(())
        }
    }
}

async fn list(
    app: &App,
    format: Format,
    name: Option<String>,
    limit: i64,
    after: Option<String>,
) -> anyhow::Result<()> {
    let user = match name {
        Some(name) => Some(user::find(app, &name).await?.id),
        None => None,
    };
    let after = after.map(SessionId::new);
    let idle = app.config.sessions.idle;
    let reading = app.store.sessions(user.as_ref(), after.as_ref(), limit, idle, app.now());
    let sessions = during(READING, reading).await?;
    let items: Vec<Value> = sessions.iter().map(describe).collect();
    let columns = ["sid", "user", "auth_time", "created_at", "last_seen_at", "expires_at"];
    output::list(format, &columns, &items);
    output::more(&items, limit, "sid");
    Ok(())
}

fn describe(session: &ListedSession) -> Value {
    let name = session.username.as_deref().or(session.email.as_deref()).unwrap_or(session.user_id.as_str());
    json!({
        "sid": session.id,
        "user": name,
        "user_id": session.user_id,
        "auth_time": session.auth_time.map(output::time),
        "created_at": output::time(session.created_at),
        "last_seen_at": output::time(session.last_seen_at),
        "expires_at": output::time(session.expires_at),
    })
}
