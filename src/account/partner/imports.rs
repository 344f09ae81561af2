//! Many registrations at once: taken in whole, done line by line by whichever process has the lease, gone on with after
//! a restart. No keys are made: whoever needs one asks for it.

use std::collections::HashSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::Partner;
use super::register::{RegisterError, Registered, Request, register};
use crate::app::App;
use crate::live;
use crate::protocol::ids::{ImportId, OnboardingId};
use crate::protocol::partner::Registration;
use crate::protocol::time::Span;
use crate::store::imports::{Import, ImportState, LineId, Wish};
use crate::store::{Result, StoreError};

/// How long an import is ours without a word: another process goes on with it afterwards.
const LEASE: Span = Span::from_secs(30);
/// How often an import looks whether its partner is back, and for how long.
const REST: Span = Span::minutes(1);
const GIVE_UP: Span = Span::days(1);
/// Lines that are read at a time, and how many of them are at work together.
const BATCH: i64 = 64;
const TOGETHER: usize = 16;

/// Takes an import in: for each line what it asks for, or the code of what is wrong with it.
pub async fn accept(
    app: &App,
    partner: &Partner,
    lines: Vec<std::result::Result<Registration, &'static str>>,
) -> Result<ImportId> {
    let wish = |registration| {
        let onboarding = OnboardingId::from_random(app.rng.id());
        Wish { onboarding, registration }
    };
    let lines = lines.into_iter().map(|line| line.map(wish)).collect();
    let id = ImportId::from_random(app.rng.id());
    app.store.create_import(id.clone(), partner.id.clone(), lines, app.now()).await?;
    app.imports.notify_one();
    Ok(id)
}

/// Works at the next import that nobody is at, until it is done or `stopping` says to leave it. `false` where there is
/// none.
pub async fn work(app: &App, stopping: impl Fn() -> bool) -> Result<bool> {
    let Some(import) = app.store.claim_import(LEASE, app.now()).await? else { return Ok(false) };
    loop {
        let Some(client) = live::partner_client(app, &import.partner).await? else {
            return wait_for_partner(app, &import).await.map(|()| true);
        };
        let name = client.client.display_name().to_owned();
        let partner = Partner { id: import.partner.clone(), name, address: None };
        let lines = distinct(app.store.open_lines(&import.id, BATCH).await?);
        if lines.is_empty() {
            end(app, &import, ImportState::Completed, None).await?;
            return Ok(true);
        }
        let work = stream::iter(lines).map(|(line, wish)| one(app, &partner, line, wish));
        work.buffer_unordered(TOGETHER).try_collect::<()>().await?;
        if !app.store.renew_import(import.id.clone(), LEASE, app.now()).await? {
            return Ok(true);
        }
        if stopping() {
            end(app, &import, ImportState::Queued, None).await?;
            return Ok(false);
        }
    }
}

/// A partner that is switched off for a while finds its import where it was; one that stays so finds it given up.
async fn wait_for_partner(app: &App, import: &Import) -> Result<()> {
    let now = app.now();
    if now - import.created_at > GIVE_UP {
        return end(app, import, ImportState::Failed, Some("partner_disabled")).await;
    }
    app.store.put_off_import(import.id.clone(), now + REST).await
}

async fn end(app: &App, import: &Import, state: ImportState, reason: Option<&'static str>) -> Result<()> {
    tracing::info!(import = import.id.as_str(), partner = import.partner.as_str(), state = state.as_str(), "import");
    app.store.release_import(import.clone(), state, reason, app.now()).await
}

/// The lines up to the first that shares a name with one before it: of two the earlier counts.
fn distinct(lines: Vec<(LineId, Wish)>) -> Vec<(LineId, Wish)> {
    let (mut ids, mut emails) = (HashSet::new(), HashSet::new());
    let is_new = |(_, wish): &(LineId, Wish)| {
        let new_id = ids.insert(wish.registration.external_id.clone());
        emails.insert(wish.registration.email.clone()) && new_id
    };
    lines.into_iter().take_while(is_new).collect()
}

async fn one(app: &App, partner: &Partner, line: LineId, wish: Wish) -> Result<()> {
    let request = Request {
        registration: wish.registration,
        key: None,
        idempotent: None,
        line: Some(line.clone()),
        onboarding: Some(wish.onboarding),
    };
    let result = match register(app, partner, request).await {
        // What was written ended the line with it.
        Ok(Registered::Created(_) | Registered::LineDone | Registered::Answered(_)) => return Ok(()),
        Ok(Registered::Existing(user)) => Ok(user.id),
        Err(RegisterError::Conflict(conflict)) => Err(conflict.code()),
        Err(RegisterError::Store(error)) => return Err(error),
        Err(RegisterError::Key(_) | RegisterError::IdempotencyMismatch) => {
            return Err(StoreError::Refused("an import makes no keys"));
        }
    };
    app.store.finish_line(line, result).await
}
