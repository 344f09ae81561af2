//! `keyward mail`: whether mail works, what became of it, and sending it again.

use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::output::{self, Format};
use super::progress::{READING, during};
use crate::ambient::{Clock as _, SystemClock, SystemRng, random_bytes};
use crate::app::App;
use crate::config::Config;
use crate::crypto::digest::base64url;
use crate::mail::carrier::{Carrier, Failure, Fault};
use crate::mail::letter::Content;
use crate::store::outbox::{ListedMail, MailState, Retried};

#[derive(Subcommand)]
pub enum MailCommand {
    /// Send one mail now, as the configuration says, and tell what came of it.
    Test {
        /// Whom to write to.
        #[arg(long, value_name = "ADDRESS")]
        to: String,
    },
    /// List mails, oldest first. Those that ended are forgotten a week later.
    List {
        /// Only those that wait, that are never sent, or that were.
        #[arg(long, value_enum)]
        state: Option<State>,
        /// How many at most.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
        /// Begin after the mail with this id.
        #[arg(long, value_name = "ID")]
        after: Option<String>,
    },
    /// Send a mail again that is dead, or at once one that waits.
    Retry {
        /// The mail's id, as `mail list` has it.
        #[arg(required_unless_present = "all", conflicts_with = "all", allow_hyphen_values = true)]
        id: Option<String>,
        /// Every dead mail.
        #[arg(long)]
        all: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum State {
    Pending,
    Dead,
    Sent,
}

impl State {
    const fn stored(self) -> MailState {
        match self {
            Self::Pending => MailState::Pending,
            Self::Dead => MailState::Dead,
            Self::Sent => MailState::Sent,
        }
    }
}

/// Needs no database: mail can be put right before there is one.
pub async fn test(config: &Config, to: &str, format: Format) -> anyhow::Result<()> {
    let carrier = Carrier::of(config);
    let id = base64url(&random_bytes::<16>(&SystemRng));
    let destination = carrier.destination();
    let sending = carrier.carry(&id, to, Content::Test, SystemClock.now());
    let carried = during("sending", sending).await;
    carrier.rest().await;
    match carried {
        Ok(carried) => {
            output::object(
                format,
                &json!({
                    "result": "sent",
                    "to": to,
                    "from": config.mail.from.to_string(),
                    "by": destination,
                    "message_id": carried.message_id,
                    "answer": carried.answer,
                }),
            );
            Ok(())
        }
        Err(Failure { fault: Fault::Refused, text, .. }) => bail!("{to} is refused: {text}"),
        Err(Failure { fault: Fault::Deferred, text, .. }) => {
            bail!("{destination} puts us off: {text}; a mail of the outbox would be tried again")
        }
        Err(Failure { fault: Fault::Ours, text, .. }) => bail!("mail cannot leave by {destination}: {text}"),
    }
}

pub async fn run(command: MailCommand, app: &App, format: Format) -> anyhow::Result<()> {
    match command {
        MailCommand::Test { to } => test(&app.config, &to, format).await,
        MailCommand::List { state, limit, after } => {
            let reading = app.store.mails(state.map(State::stored), after.as_deref(), limit);
            let mails = during(READING, reading).await?;
            let items: Vec<Value> = mails.iter().map(describe).collect();
            let columns = ["id", "kind", "state", "to", "partner", "attempts", "created_at", "due_at", "last_error"];
            output::list(format, &columns, &items);
            output::more(&items, limit, "id");
            Ok(())
        }
        MailCommand::Retry { all: true, .. } => {
            let revived = during("reviving", app.store.retry_dead_mails(app.now())).await?;
            output::object(format, &json!({ "revived": revived }));
            Ok(())
        }
        MailCommand::Retry { id, .. } => retry(app, format, &id.context("which one?")?).await,
    }
}

async fn retry(app: &App, format: Format, id: &str) -> anyhow::Result<()> {
    let note = match app.store.retry_mail(id, app.now()).await? {
        Retried::Revived => "was dead; has all of its tries again, the first within a second",
        Retried::Hastened => "waited; is tried within a second",
        Retried::Underway => "is being sent right now",
        Retried::AlreadySent => bail!("{id} was sent already"),
        Retried::Unknown => bail!("there is no mail `{id}`; `keyward mail list` shows all"),
    };
    output::object(format, &json!({ "id": id, "note": note }));
    Ok(())
}

fn describe(mail: &ListedMail) -> Value {
    json!({
        "id": mail.id,
        "kind": mail.kind,
        "state": mail.state,
        "to": mail.to,
        "partner": mail.partner,
        "attempts": mail.attempts,
        "created_at": output::time(mail.created_at),
        "due_at": mail.finished_at.is_none().then(|| output::time(mail.due_at)),
        "finished_at": mail.finished_at.map(output::time),
        "last_error": mail.last_error,
    })
}
