//! Sends what the outbox holds. A letter is claimed, carried away, and its row ended: a process that dies in between
//! leaves the claim to run out, so that everything is sent at least once, and twice only where nobody can know.

pub mod carrier;
mod channel;
mod file;
pub mod letter;
mod retry;
mod smtp;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::ambient::{SharedClock, SharedRng};
use crate::config::{Config, MailCap};
use crate::protocol::time::Span;
use crate::store::outbox::{Cap, Caps, ClaimedMail, DeadReason, PutOff};
use crate::store::{Result, Store};
use crate::telemetry::metrics::{self, MailOutcome};
use carrier::{Carrier, Failure, Fault};
use letter::Content;

/// Letters on their way at a time.
const AT_ONCE: usize = 8;
/// How often mails of other processes, and those whose time has come, are looked for.
const POLL: Duration = Duration::from_secs(1);
/// What a claim lasts beyond the sending itself: for the store before and after it.
const SLACK: Span = Span::from_secs(20);
/// How often the end of a mail is written again where the store fails: it has left, and nobody else knows. As long as
/// a failover of the database takes.
const INSIST: u32 = 120;
const INSIST_EVERY: Duration = Duration::from_secs(1);
pub struct Sender {
    store: Store,
    clock: SharedClock,
    rng: SharedRng,
    carrier: Carrier,
    caps: Caps,
    /// It was said already that the server cannot be used.
    told: AtomicBool,
}

impl Sender {
    pub fn new(config: &Config, store: Store, clock: SharedClock, rng: SharedRng) -> Self {
        let carrier = Carrier::of(config);
        let cap = |cap: MailCap| Cap { mails: i64::from(cap.mails), window: cap.window };
        let caps = Caps { address: cap(config.mail.address_cap), partner: cap(config.mail.partner_cap) };
        Self { store, clock, rng, carrier, caps, told: AtomicBool::new(false) }
    }

    /// Whether mail could leave as far as the configuration goes; nobody is asked.
    ///
    /// # Errors
    /// What an operator has to put right.
    pub async fn check(&self) -> anyhow::Result<()> {
        self.carrier.check().await.map_err(|failure| anyhow::anyhow!(failure.text))
    }

    /// Sends whatever is queued or due, until `stop` turns true; then what is on its way still arrives.
    pub async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut underway = JoinSet::new();
        let mut reported = false;
        while !*stop.borrow() {
            match self.begin(&mut underway).await {
                Ok(()) => reported = false,
                Err(error) if !reported => {
                    tracing::warn!(%error, "mail that is due could not be read; trying again");
                    reported = true;
                }
                Err(_) => {}
            }
            if underway.is_empty() {
                self.carrier.rest().await;
            }
            let has_room = underway.len() < AT_ONCE;
            tokio::select! {
                Some(_) = underway.join_next() => {}
                () = self.store.mail_is_queued(), if has_room => {}
                () = tokio::time::sleep(POLL), if has_room => {}
                _ = stop.changed() => break,
            }
        }
        while underway.join_next().await.is_some() {}
        self.carrier.rest().await;
    }

    /// Sends what is due, and returns when nothing is.
    pub async fn send_due(self: &Arc<Self>) -> Result<()> {
        let mut underway = JoinSet::new();
        loop {
            self.begin(&mut underway).await?;
            if underway.join_next().await.is_none() {
                self.carrier.rest().await;
                return Ok(());
            }
        }
    }

    /// Claims no more than can be carried at once: a claim that waited for its turn could run out.
    async fn begin(self: &Arc<Self>, underway: &mut JoinSet<()>) -> Result<()> {
        let free = AT_ONCE.saturating_sub(underway.len());
        if free == 0 {
            return Ok(());
        }
        let lease = self.carrier.patience() + SLACK;
        let claims = self.store.claim_mails(self.clock.now(), lease, free, self.caps).await?;
        for PutOff { partner, mails, until } in claims.put_off {
            tracing::warn!(%partner, mails, until = until.rfc3339(), "mail of a partner above their cap is put off");
            metrics::mail(MailOutcome::PutOff);
        }
        let admitted = claims.mails.into_iter().map(|mail| (mail, true));
        for (mail, may_leave) in admitted.chain(claims.capped.into_iter().map(|mail| (mail, false))) {
            let sender = Arc::clone(self);
            underway.spawn(async move { sender.attempt(mail, may_leave).await });
        }
        Ok(())
    }

    async fn attempt(&self, mail: ClaimedMail, may_leave: bool) {
        let outcome = match may_leave {
            // Claimed more often than it is tried: it takes its process along each time.
            true if mail.attempt > retry::TRIES => {
                self.end(&mail, DeadReason::Undeliverable, "no try of it came to an end", None).await
            }
            true => self.carry(&mail).await,
            false => self.end(&mail, DeadReason::Capped, "this address has had enough mail", None).await,
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, id = mail.id, "a mail is left to the end of its claim");
        }
    }

    async fn carry(&self, mail: &ClaimedMail) -> Result<()> {
        let content = match &mail.mail {
            Ok(content) => Content::Mail(content),
            // A newer release that runs beside this one, or runs again, knows it.
            Err(why) => {
                let failure = Failure { fault: Fault::Deferred, code: None, text: why.clone() };
                return self.failed(mail, failure).await;
            }
        };
        match self.carrier.carry(&mail.id, &mail.to, content, mail.created_at).await {
            Ok(_) => self.sent(mail).await,
            Err(failure) => self.failed(mail, failure).await,
        }
    }

    async fn sent(&self, mail: &ClaimedMail) -> Result<()> {
        if self.told.swap(false, Ordering::Relaxed) {
            tracing::info!(destination = self.carrier.destination(), "mail leaves again");
        }
        let mut tries = 1;
        while let Err(error) = self.store.finish_sent(mail, self.clock.now()).await {
            if tries >= INSIST {
                return Err(error);
            }
            tries += 1;
            tokio::time::sleep(INSIST_EVERY).await;
        }
        self.tell(mail, MailOutcome::Sent, None);
        self.move_on(mail, "mail_sent");
        Ok(())
    }

    async fn failed(&self, mail: &ClaimedMail, failure: Failure) -> Result<()> {
        match failure.fault {
            Fault::Refused => {
                return self.end(mail, DeadReason::Rejected, &failure.text, failure.code.as_deref()).await;
            }
            Fault::Ours if !self.told.swap(true, Ordering::Relaxed) => {
                let destination = self.carrier.destination();
                // What a server says may hold the recipient's address; its code does not.
                let error = failure.code.as_deref().unwrap_or(&failure.text);
                tracing::error!(destination, error, "mail cannot leave; it is kept and tried again");
            }
            Fault::Ours | Fault::Deferred => {}
        }
        let Some(pause) = retry::pause_after(mail.attempt, self.rng.as_ref()) else {
            return self.end(mail, DeadReason::Undeliverable, &failure.text, failure.code.as_deref()).await;
        };
        self.store.finish_later(mail, self.clock.now() + pause, failure.text).await?;
        self.tell(mail, MailOutcome::Deferred, failure.code.as_deref());
        Ok(())
    }

    async fn end(&self, mail: &ClaimedMail, reason: DeadReason, text: &str, code: Option<&str>) -> Result<()> {
        let error = format!("{reason}: {text}");
        if self.store.finish_dead(mail, reason, error, self.clock.now()).await? {
            let outcome = match reason {
                DeadReason::Rejected => MailOutcome::Rejected,
                DeadReason::Undeliverable => MailOutcome::Undeliverable,
                DeadReason::Capped => MailOutcome::Capped,
            };
            self.tell(mail, outcome, code);
            self.move_on(mail, "mail_failed");
        }
        Ok(())
    }

    /// One line a mail: never what it says, and of its address the domain alone.
    fn tell(&self, mail: &ClaimedMail, outcome: MailOutcome, code: Option<&str>) {
        metrics::mail(outcome);
        let domain = mail.to.rsplit_once('@').map_or("", |(_, domain)| domain);
        let (id, attempt, outcome) = (mail.id.as_str(), mail.attempt, outcome.as_str());
        tracing::info!(id, outcome, attempt, domain, code, "mail");
    }

    fn move_on(&self, mail: &ClaimedMail, outcome: &'static str) {
        if let (Some(partner), Some(_)) = (&mail.partner, &mail.onboarding) {
            metrics::onboarding(partner.as_str(), outcome);
        }
    }
}
