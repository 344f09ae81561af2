//! Sends what the outbox holds. A letter is claimed, carried away, and its row ended: a process that dies in between
//! leaves the claim to run out, so that everything is sent at least once, and twice only where nobody can know.

pub mod carrier;
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
use crate::config::{Config, Mail as MailConfig};
use crate::protocol::ids::ClientId;
use crate::protocol::time::{Span, Timestamp};
use crate::store::outbox::{ClaimedMail, Counted, DeadReason};
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
/// How often the end of a mail is written again where the store fails: it has left, and nobody else knows.
const INSIST: u32 = 10;
const INSIST_EVERY: Duration = Duration::from_secs(1);
/// How long a mail waits for another to the same address, or of the same partner, that may use up the last place.
const ASIDE: Span = Span::from_secs(2);
/// The shortest rest of a partner who sent too much. All that waits of theirs is moved at once, so not all the time.
const REST: Span = Span::minutes(1);

pub struct Sender {
    store: Store,
    clock: SharedClock,
    rng: SharedRng,
    carrier: Carrier,
    config: MailConfig,
    /// It was said already that the server cannot be used.
    told: AtomicBool,
}

/// Whether a mail may leave now.
enum Room {
    Free,
    /// Not before.
    Later(Timestamp),
    /// The same, for all of this partner's.
    LaterAll(ClientId, Timestamp),
    Never,
}

impl Sender {
    pub fn new(config: &Config, store: Store, clock: SharedClock, rng: SharedRng) -> Self {
        let carrier = Carrier::of(config);
        Self { store, clock, rng, carrier, config: config.mail.clone(), told: AtomicBool::new(false) }
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
        let limit = i64::try_from(free).unwrap_or_default();
        for mail in self.store.claim_mails(self.clock.now(), lease, limit).await? {
            let sender = Arc::clone(self);
            underway.spawn(async move { sender.attempt(mail).await });
        }
        Ok(())
    }

    async fn attempt(&self, mail: ClaimedMail) {
        let outcome = match self.room(&mail).await {
            Ok(Room::Free) => self.carry(&mail).await,
            Ok(Room::Later(until)) => self.put_off(&mail, until).await,
            Ok(Room::LaterAll(partner, until)) => self.put_off_all(&mail, &partner, until).await,
            Ok(Room::Never) => self.end(&mail, DeadReason::Capped, "this address has had enough mail").await,
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            tracing::warn!(%error, id = mail.id, "a mail is left to the end of its claim");
        }
    }

    /// What the caps say. A mail that others might use up the last place before waits until that is known.
    async fn room(&self, mail: &ClaimedMail) -> Result<Room> {
        let now = self.clock.now();
        let (address, partner) = (self.config.address_cap, self.config.partner_cap);
        let aside = || now + retry::with_chance(ASIDE, self.rng.as_ref());
        let tally = self.store.tally_mails(Counted::Address, mail, now - address.window, now).await?;
        if tally.sent >= i64::from(address.mails) {
            return Ok(Room::Never);
        }
        if tally.sent + tally.sending >= i64::from(address.mails) {
            return Ok(Room::Later(aside()));
        }
        let Some(id) = &mail.partner else { return Ok(Room::Free) };
        let tally = self.store.tally_mails(Counted::Partner, mail, now - partner.window, now).await?;
        if tally.sent >= i64::from(partner.mails) {
            let last = self.store.mail_sent_before(id, i64::from(partner.mails) - 1).await?;
            let free_at = last.map_or(now, |last| last + partner.window);
            return Ok(Room::LaterAll(id.clone(), free_at.max(now + REST)));
        }
        let crowded = tally.sent + tally.sending >= i64::from(partner.mails);
        Ok(if crowded { Room::Later(aside()) } else { Room::Free })
    }

    async fn carry(&self, mail: &ClaimedMail) -> Result<()> {
        let content = match &mail.mail {
            Ok(content) => Content::Mail(content),
            // A newer release that runs beside this one, or runs again, knows it.
            Err(why) => return self.failed(mail, Failure::ours(why)).await,
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
                return self.end_with(mail, DeadReason::Rejected, &failure.text, failure.code.as_deref()).await;
            }
            Fault::Ours if !self.told.swap(true, Ordering::Relaxed) => {
                let destination = self.carrier.destination();
                tracing::error!(destination, error = failure.text, "mail cannot leave; it is kept and tried again");
            }
            Fault::Ours | Fault::Deferred => {}
        }
        let Some(pause) = retry::pause_after(mail.attempt, self.rng.as_ref()) else {
            return self.end_with(mail, DeadReason::Undeliverable, &failure.text, failure.code.as_deref()).await;
        };
        self.store.finish_later(mail, self.clock.now() + pause, failure.text).await?;
        self.tell(mail, MailOutcome::Deferred, failure.code.as_deref());
        Ok(())
    }

    async fn put_off(&self, mail: &ClaimedMail, until: Timestamp) -> Result<()> {
        self.store.put_off(mail, until).await
    }

    async fn put_off_all(&self, mail: &ClaimedMail, partner: &ClientId, until: Timestamp) -> Result<()> {
        self.store.put_off(mail, until).await?;
        let others = self.store.put_off_all(partner, until).await?;
        tracing::warn!(%partner, mails = others + 1, until = until.rfc3339(), "mail of a partner above their cap is put off");
        metrics::mail(MailOutcome::PutOff);
        Ok(())
    }

    async fn end(&self, mail: &ClaimedMail, reason: DeadReason, text: &str) -> Result<()> {
        self.end_with(mail, reason, text, None).await
    }

    async fn end_with(&self, mail: &ClaimedMail, reason: DeadReason, text: &str, code: Option<&str>) -> Result<()> {
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
