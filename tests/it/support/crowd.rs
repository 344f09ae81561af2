//! Apps and people that use a provider until it, or its database, is killed. Each keeps what it was told and what it
//! asked without being told, and from that it knows what must be true once the provider is back.

use std::cell::Cell;

use futures_util::future::join_all;

use super::browser::Page;
use super::process::wait_for;
use super::wire::{Person, SCOPES, Tokens, Wire, code_of, refused, unavailable};

const OFFLINE: &str = "openid profile offline_access";

/// How long a crowd goes on, and what it may hear meanwhile.
pub struct Shift<'a> {
    pub wire: &'a Wire,
    /// Whoever sees it true goes home.
    pub over: Cell<bool>,
    /// Answers so far.
    pub heard: Cell<usize>,
    /// The database is away for a while: 503 is an answer. Otherwise it is none that anybody may hear.
    pub may_be_unavailable: bool,
}

impl<'a> Shift<'a> {
    pub fn new(wire: &'a Wire, may_be_unavailable: bool) -> Self {
        Self { wire, over: Cell::new(false), heard: Cell::new(0), may_be_unavailable }
    }

    /// Until so many answers were heard: a measure of time that a busy machine stretches.
    pub async fn heard(&self, answers: usize) {
        wait_for("answers", async || (self.heard.get() >= answers).then_some(())).await;
    }

    fn goes_on(&self) -> bool {
        !self.over.get()
    }

    /// What was said for certain. A 503 leaves open whether it was done, as does no answer at all.
    fn told(&self, page: Option<Page>) -> Option<Page> {
        let page = page?;
        self.heard.set(self.heard.get() + 1);
        if page.status.is_server_error() {
            assert!(self.may_be_unavailable, "nothing was wrong: {} {}", page.status, page.body);
            unavailable(&page);
            return None;
        }
        Some(page)
    }
}

/// What all of it came to, so that a test can tell that it tested something.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// Successes that were answered.
    pub told: usize,
    /// Requests whose answer never came.
    pub untold: usize,
}

/// Gets codes and redeems them.
struct Redeemer {
    client_id: &'static str,
    person: Person,
    issued: usize,
    /// Codes that nobody has presented yet.
    loose: Vec<String>,
    /// One that was presented, without an answer.
    presented: Option<String>,
    /// Codes that were redeemed since the last look, and those before; their grants live.
    fresh: Vec<(String, Tokens)>,
    redeemed: Vec<(String, Tokens)>,
    /// Grants that a replay has ended.
    ended: Vec<(String, Tokens)>,
    count: Count,
}

impl Redeemer {
    async fn arrive(wire: &Wire, client_id: &'static str, username: &str) -> Self {
        Self {
            client_id,
            person: wire.signed_in(username).await,
            issued: 0,
            loose: Vec::new(),
            presented: None,
            fresh: Vec::new(),
            redeemed: Vec::new(),
            ended: Vec::new(),
            count: Count::default(),
        }
    }

    async fn work(&mut self, shift: &Shift<'_>) {
        while shift.goes_on() {
            let page = shift.wire.authorize(self.client_id, &self.person, OFFLINE, "").await;
            let Some(page) = shift.told(page) else { return };
            let code = code_of(&page);
            self.issued += 1;
            if self.issued.is_multiple_of(4) {
                self.loose.push(code);
                continue;
            }
            self.presented = Some(code.clone());
            let Some(page) = shift.told(shift.wire.redeem(self.client_id, &code).await) else { return };
            self.presented = None;
            self.fresh.push((code, Tokens::of(&page)));
        }
    }

    async fn check(&mut self, wire: &Wire) {
        let redeem = async |code: &str| wire.redeem(self.client_id, code).await.expect("an answer");
        self.count.told += self.fresh.len() + self.loose.len();
        if let Some(code) = self.presented.take() {
            self.count.untold += 1;
            let page = redeem(&code).await;
            if page.status == 200 {
                refused(&redeem(&code).await);
                assert!(!wire.is_active(&Tokens::of(&page).refresh_token).await, "a replay ends the grant");
            } else {
                refused(&page);
            }
        }
        for code in std::mem::take(&mut self.loose) {
            let page = redeem(&code).await;
            self.fresh.push((code, Tokens::of(&page)));
        }
        for (_, tokens) in &self.fresh {
            assert!(wire.is_active(&tokens.refresh_token).await, "an answered redemption is gone");
        }
        // One of them pays for the proof that it cannot be used again: a replay ends the grant.
        if let Some(one) = self.fresh.pop() {
            self.replay(wire, one).await;
        }
        self.redeemed.append(&mut self.fresh);
    }

    async fn replay(&mut self, wire: &Wire, (code, tokens): (String, Tokens)) {
        refused(&wire.redeem(self.client_id, &code).await.expect("an answer"));
        assert!(!wire.is_active(&tokens.refresh_token).await, "a replay ends the grant");
        self.ended.push((code, tokens));
    }

    async fn look_back(&mut self, wire: &Wire) {
        for (_, tokens) in &self.ended {
            assert!(!wire.is_active(&tokens.refresh_token).await, "an ended grant lives again");
        }
        for (code, tokens) in std::mem::take(&mut self.redeemed) {
            assert!(wire.is_active(&tokens.refresh_token).await, "an answered redemption is gone");
            assert!(wire.is_active(&tokens.access_token).await, "an answered access token is gone");
            self.replay(wire, (code, tokens)).await;
        }
    }
}

/// Refreshes one grant whose refresh token rotates.
struct Rotator {
    client_id: &'static str,
    /// The newest that was answered.
    token: String,
    /// The one before.
    parent: Option<String>,
    /// The newest was presented, without an answer.
    presented: bool,
    count: Count,
}

impl Rotator {
    async fn arrive(wire: &Wire, client_id: &'static str, username: &str) -> Self {
        let tokens = new_grant(wire, client_id, username).await;
        Self { client_id, token: tokens.refresh_token, parent: None, presented: false, count: Count::default() }
    }

    async fn work(&mut self, shift: &Shift<'_>) {
        while shift.goes_on() {
            self.presented = true;
            let Some(page) = shift.told(shift.wire.refresh(self.client_id, &self.token).await) else { return };
            self.count.told += 1;
            self.moved_to(Tokens::of(&page).refresh_token);
        }
    }

    fn moved_to(&mut self, successor: String) {
        assert_ne!(successor, self.token, "it rotates");
        self.parent = Some(std::mem::replace(&mut self.token, successor));
        self.presented = false;
    }

    async fn check(&mut self, wire: &Wire) {
        if self.presented {
            self.count.untold += 1;
            // Done or not, whoever asks again gets the one successor that there is.
            let ask = async || Tokens::of(&wire.refresh(self.client_id, &self.token).await.expect("an answer"));
            let successor = ask().await.refresh_token;
            assert_eq!(ask().await.refresh_token, successor, "one token, two successors");
            self.moved_to(successor);
        }
        assert!(wire.is_active(&self.token).await, "the newest answered refresh token is gone");
        if let Some(parent) = &self.parent {
            assert!(!wire.is_active(parent).await, "a refresh token and its parent both live");
        }
    }

    /// Uses the newest once more; then its parent is reuse, which ends everything.
    async fn look_back(&mut self, wire: &Wire) {
        let page = wire.refresh(self.client_id, &self.token).await.expect("an answer");
        let newest = Tokens::of(&page).refresh_token;
        let parent = self.parent.as_ref().expect("it was refreshed before");
        refused(&wire.refresh(self.client_id, parent).await.expect("an answer"));
        assert!(!wire.is_active(&newest).await, "reuse ends the grant");
    }
}

/// Refreshes one grant whose refresh token stays the same; each use is noted.
struct Renewer {
    token: String,
    count: Count,
}

impl Renewer {
    async fn arrive(wire: &Wire, username: &str) -> Self {
        Self { token: new_grant(wire, "web", username).await.refresh_token, count: Count::default() }
    }

    async fn work(&mut self, shift: &Shift<'_>) {
        while shift.goes_on() {
            let Some(page) = shift.told(shift.wire.refresh("web", &self.token).await) else {
                self.count.untold += 1;
                return;
            };
            assert_eq!(Tokens::of(&page).refresh_token, self.token);
            self.count.told += 1;
        }
    }

    async fn check(&mut self, wire: &Wire) {
        let page = wire.refresh("web", &self.token).await.expect("an answer");
        assert_eq!(Tokens::of(&page).refresh_token, self.token);
    }
}

/// Revokes what it got: in turn a refresh token with all that came from it, and a single access token.
struct Revoker {
    person: Person,
    done: usize,
    /// To be revoked, and asked for without an answer.
    asked: Option<Revoked>,
    fresh: Vec<Revoked>,
    revoked: Vec<Revoked>,
    count: Count,
}

struct Revoked {
    tokens: Tokens,
    whole: bool,
}

impl Revoked {
    fn token(&self) -> &str {
        if self.whole { &self.tokens.refresh_token } else { &self.tokens.access_token }
    }

    async fn holds(&self, wire: &Wire) {
        assert!(!wire.is_active(&self.tokens.access_token).await, "a revoked access token lives");
        assert_eq!(wire.userinfo(&self.tokens.access_token).await.expect("an answer").status, 401);
        let page = wire.refresh("web", &self.tokens.refresh_token).await.expect("an answer");
        if self.whole {
            refused(&page);
        } else {
            // The rest of the grant is untouched.
            Tokens::of(&page);
        }
    }
}

impl Revoker {
    async fn arrive(wire: &Wire, username: &str) -> Self {
        let person = wire.signed_in(username).await;
        Self { person, done: 0, asked: None, fresh: Vec::new(), revoked: Vec::new(), count: Count::default() }
    }

    async fn work(&mut self, shift: &Shift<'_>) {
        while shift.goes_on() {
            let page = shift.wire.authorize("web", &self.person, OFFLINE, "").await;
            let Some(page) = shift.told(page) else { return };
            let Some(page) = shift.told(shift.wire.redeem("web", &code_of(&page)).await) else { return };
            self.done += 1;
            let revoked = Revoked { tokens: Tokens::of(&page), whole: self.done.is_multiple_of(2) };
            let revoked = self.asked.insert(revoked);
            let Some(page) = shift.told(shift.wire.revoke("web", revoked.token()).await) else { return };
            assert_eq!(page.status, 200, "{}", page.body);
            self.fresh.extend(self.asked.take());
        }
    }

    async fn check(&mut self, wire: &Wire) {
        self.count.told += self.fresh.len();
        if let Some(again) = self.asked.take() {
            self.count.untold += 1;
            assert_eq!(wire.revoke("web", again.token()).await.expect("an answer").status, 200);
            self.fresh.push(again);
        }
        for revoked in &self.fresh {
            revoked.holds(wire).await;
        }
        self.revoked.append(&mut self.fresh);
    }

    async fn look_back(&mut self, wire: &Wire) {
        for revoked in &self.revoked {
            revoked.holds(wire).await;
        }
    }
}

/// Signs in, and every other time out again.
struct Visitor {
    stranger: Person,
    visits: usize,
    /// Asked to be signed out, without an answer.
    leaving: Option<Person>,
    inside: Vec<Person>,
    gone: Vec<Person>,
    /// How many of these were looked at already.
    seen: (usize, usize),
    count: Count,
}

impl Visitor {
    async fn arrive(wire: &Wire, username: &str) -> Self {
        let stranger = wire.visitor(username).await;
        let (inside, gone) = (Vec::new(), Vec::new());
        Self { stranger, visits: 0, leaving: None, inside, gone, seen: (0, 0), count: Count::default() }
    }

    async fn work(&mut self, shift: &Shift<'_>) {
        while shift.goes_on() {
            let Some(page) = shift.told(shift.wire.sign_in(&self.stranger).await) else { return };
            let person = self.stranger.welcomed(&page);
            self.visits += 1;
            self.count.told += 1;
            if self.visits.is_multiple_of(2) {
                self.inside.push(person);
                continue;
            }
            self.leaving = Some(person.clone());
            let Some(page) = shift.told(shift.wire.sign_out_page(&person).await) else { return };
            let page = shift.wire.press(&page, "/logout", ("action", "logout"), &person).await;
            let Some(page) = shift.told(page) else { return };
            assert_eq!(page.status, 200, "{}", page.body);
            self.count.told += 1;
            self.gone.extend(self.leaving.take());
        }
    }

    async fn check(&mut self, wire: &Wire) {
        if let Some(person) = self.leaving.take() {
            self.count.untold += 1;
            let page = wire.sign_out_page(&person).await.expect("an answer");
            wire.press(&page, "/logout", ("action", "logout"), &person).await.expect("an answer");
            self.gone.push(person);
        }
        let (inside, gone) = self.seen;
        self.look(wire, inside, gone).await;
        self.seen = (self.inside.len(), self.gone.len());
    }

    async fn look(&self, wire: &Wire, inside: usize, gone: usize) {
        for person in &self.inside[inside..] {
            assert!(wire.is_signed_in(person).await, "an answered sign-in is gone");
        }
        for person in &self.gone[gone..] {
            assert!(!wire.is_signed_in(person).await, "an answered sign-out did not last");
        }
    }
}

/// Allows an app one more scope each time.
struct Consenter {
    person: Person,
    allowed: usize,
    seen: usize,
    count: Count,
}

impl Consenter {
    async fn arrive(wire: &Wire, username: &str) -> Self {
        Self { person: wire.signed_in(username).await, allowed: 0, seen: 0, count: Count::default() }
    }

    async fn work(&mut self, shift: &Shift<'_>) {
        while shift.goes_on() && self.allowed < SCOPES {
            let scope = format!("openid s{}", self.allowed);
            let Some(page) = shift.told(shift.wire.authorize("ask", &self.person, &scope, "").await) else { return };
            let url = page.location().to_owned();
            if url.starts_with("https://ask.test/") {
                // The consent whose answer never came counted all the same.
                code_of(&page);
            } else {
                let cookies = self.person.cookies();
                let page = shift.wire.send(&url, None, &[("cookie", &cookies)]).await;
                let Some(page) = shift.told(page) else { return };
                let page = shift.wire.press(&page, "/consent", ("decision", "allow"), &self.person).await;
                let Some(page) = shift.told(page) else {
                    self.count.untold += 1;
                    return;
                };
                assert!(page.location().contains("/authorize/resume"), "{}", page.body);
            }
            self.allowed += 1;
            self.count.told += 1;
        }
    }

    async fn check(&mut self, wire: &Wire) {
        for n in self.seen..self.allowed {
            self.is_remembered(wire, n).await;
        }
        self.seen = self.allowed;
    }

    async fn is_remembered(&self, wire: &Wire, n: usize) {
        let scope = format!("openid s{n}");
        let page = wire.authorize("ask", &self.person, &scope, "&prompt=none").await.expect("an answer");
        let params = page.location_params();
        assert!(params.contains_key("code"), "an answered consent is gone: {params:?}");
    }

    async fn look_back(&self, wire: &Wire) {
        for n in 0..self.allowed {
            self.is_remembered(wire, n).await;
        }
    }
}

/// Tokens of a grant that outlives its session.
async fn new_grant(wire: &Wire, client_id: &str, username: &str) -> Tokens {
    let person = wire.signed_in(username).await;
    let page = wire.authorize(client_id, &person, OFFLINE, "").await.expect("an answer");
    Tokens::of(&wire.redeem(client_id, &code_of(&page)).await.expect("an answer"))
}

/// All of them.
pub struct Crowd {
    redeemers: [Redeemer; 3],
    rotators: [Rotator; 3],
    renewer: Renewer,
    revoker: Revoker,
    visitor: Visitor,
    consenters: [Consenter; 2],
}

impl Crowd {
    pub async fn arrive(wire: &Wire) -> Self {
        Self {
            redeemers: [
                Redeemer::arrive(wire, "web", "u0").await,
                Redeemer::arrive(wire, "strict", "u1").await,
                Redeemer::arrive(wire, "spa", "u2").await,
            ],
            rotators: [
                Rotator::arrive(wire, "spa", "u3").await,
                Rotator::arrive(wire, "strict", "u4").await,
                Rotator::arrive(wire, "spa", "u5").await,
            ],
            renewer: Renewer::arrive(wire, "u6").await,
            revoker: Revoker::arrive(wire, "u7").await,
            visitor: Visitor::arrive(wire, "u8").await,
            consenters: [Consenter::arrive(wire, "u9").await, Consenter::arrive(wire, "u0").await],
        }
    }

    /// Everybody does what they do until the shift is over or nobody answers.
    pub async fn work(&mut self, shift: &Shift<'_>) {
        tokio::join!(
            join_all(self.redeemers.iter_mut().map(|one| one.work(shift))),
            join_all(self.rotators.iter_mut().map(|one| one.work(shift))),
            self.renewer.work(shift),
            self.revoker.work(shift),
            self.visitor.work(shift),
            join_all(self.consenters.iter_mut().map(|one| one.work(shift))),
        );
    }

    /// What happened since the last look is as it was told.
    pub async fn check(&mut self, wire: &Wire) {
        tokio::join!(
            join_all(self.redeemers.iter_mut().map(|one| one.check(wire))),
            join_all(self.rotators.iter_mut().map(|one| one.check(wire))),
            self.renewer.check(wire),
            self.revoker.check(wire),
            self.visitor.check(wire),
            join_all(self.consenters.iter_mut().map(|one| one.check(wire))),
        );
    }

    /// Everything that was ever told still holds. Ends what is ended by the proof.
    pub async fn look_back(&mut self, wire: &Wire) {
        tokio::join!(
            join_all(self.redeemers.iter_mut().map(|one| one.look_back(wire))),
            join_all(self.rotators.iter_mut().map(|one| one.look_back(wire))),
            self.revoker.look_back(wire),
            self.visitor.look(wire, 0, 0),
            join_all(self.consenters.iter().map(|one| one.look_back(wire))),
        );
    }

    /// What each kind of them did.
    pub fn counts(&self) -> Vec<(&'static str, Count)> {
        let mut counts = Vec::new();
        counts.extend(self.redeemers.iter().map(|one| ("redemptions", one.count)));
        counts.extend(self.rotators.iter().map(|one| ("rotations", one.count)));
        counts.push(("refreshes", self.renewer.count));
        counts.push(("revocations", self.revoker.count));
        counts.push(("visits", self.visitor.count));
        counts.extend(self.consenters.iter().map(|one| ("consents", one.count)));
        counts
    }
}
