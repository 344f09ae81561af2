//! Many at once, at two doors: one code, one refresh token, and tokens that are taken while what they lean on ends.
//! The races are functions of their doors, so that `cluster.rs` runs them between two processes of the program.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::LocalBoxFuture;
use keyward::crypto::secret::Secret;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::on_both_databases;
use crate::support::audit::told;
use crate::support::process::wait_for;
use crate::support::{Browser, Doors, Page, Provider, TokenAnswer, at_once};

const MANY: usize = 50;

/// That a token opens nothing any more, at no door.
pub async fn assert_dead(doors: &Doors, client_id: &str, tokens: &TokenAnswer) {
    for door in 0..2 {
        if let Some(access) = tokens.body["access_token"].as_str() {
            assert_eq!(doors.userinfo(door, access).await.status, 401, "an access token lives at door {door}");
        }
        if client_id == "spa" {
            continue;
        }
        for name in ["access_token", "refresh_token"] {
            let Some(token) = tokens.body[name].as_str() else { continue };
            let answer = doors.call(door, client_id, "/introspect", &[("token", token)]).await;
            // A client that is switched off learns nothing at all.
            let silent = answer.error() == "invalid_client" || answer.body == json!({"active": false});
            assert!(silent, "the {name} is active at door {door}: {}", answer.body);
        }
    }
    if let Some(refresh) = tokens.body["refresh_token"].as_str() {
        for door in 0..2 {
            let answer = doors.refresh(door, client_id, refresh).await;
            assert!(is_refused(&answer), "a refresh token lives at door {door}: {}", answer.body);
        }
    }
}

fn is_refused(answer: &TokenAnswer) -> bool {
    matches!((answer.status, answer.error()), (400, "invalid_grant") | (401, "invalid_client"))
}

/// Exactly one gets tokens, all others hear that the code is none, and what the one got is worth nothing.
pub async fn many_redemptions_of_one_code(doors: &Doors, client_id: &'static str) {
    let code = doors.code_for(&mut doors.browser(0), client_id, "openid+offline_access").await;
    let answers = at_once(MANY, |n| {
        let (doors, code) = (doors.clone(), code.clone());
        async move { doors.redeem(n, client_id, &code).await }
    })
    .await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((won.len(), lost.len()), (1, MANY - 1), "{lost:?}");
    for answer in lost {
        assert_eq!((answer.status, answer.error()), (400, "invalid_grant"), "{}", answer.body);
    }
    assert_dead(doors, client_id, &won[0]).await;
}

/// All get the same successor; once it is used the parent is dead, and whoever shows it ends the grant.
pub async fn many_refreshes_of_one_rotating_token(doors: &Doors) {
    let code = doors.code_for(&mut doors.browser(0), "spa", "openid+offline_access").await;
    let mut parent = doors.redeem(0, "spa", &code).await;
    let first = parent.clone();
    // More than one generation: the second begins where the first has left off.
    for generation in 0..3 {
        let token = parent.text("refresh_token");
        let answers = at_once(MANY, |n| {
            let (doors, token) = (doors.clone(), token.clone());
            async move { doors.refresh(n, "spa", &token).await }
        })
        .await;
        let successor = answers[0].text("refresh_token");
        assert_ne!(successor, token);
        for answer in &answers {
            assert_eq!(answer.status, 200, "{}", answer.body);
            assert_eq!(answer.text("refresh_token"), successor, "in generation {generation}");
        }
        assert_eq!(doors.userinfo(generation, &answers[MANY - 1].text("access_token")).await.status, 200);
        parent = answers[MANY / 2].clone();
    }
    let leaf = doors.refresh(1, "spa", &parent.text("refresh_token")).await;
    assert_eq!(leaf.status, 200, "{}", leaf.body);
    assert_eq!(
        doors.refresh(0, "spa", &parent.text("refresh_token")).await.text("refresh_token"),
        leaf.text("refresh_token")
    );
    assert_eq!(doors.refresh(1, "spa", &leaf.text("refresh_token")).await.status, 200);
    let reused = doors.refresh(0, "spa", &parent.text("refresh_token")).await;
    assert_eq!(
        (reused.status, reused.error()),
        (400, "invalid_grant"),
        "the parent is dead once its successor was used"
    );
    for tokens in [&first, &parent, &leaf] {
        assert_dead(doors, "spa", tokens).await;
    }
}

/// Each goes on from what it got. Whatever came first, no two refresh tokens of the grant are good at the end. The
/// tokens of `first` have to rotate for that.
async fn many_who_each_go_on(doors: &Doors) {
    let mut survivors = 0;
    for round in 0..6 {
        let tokens = Granted::tokens(doors, "first", "openid").await.tokens;
        // One alone is never caught; several may be, for good reason.
        let chains = at_once(1 + round, |n| {
            let (doors, mut token) = (doors.clone(), tokens.text("refresh_token"));
            async move {
                let mut chain = vec![token.clone()];
                for turn in 0..4 {
                    let answer = doors.refresh(n + turn, "first", &token).await;
                    if answer.status != 200 {
                        assert_eq!((answer.status, answer.error()), (400, "invalid_grant"), "{}", answer.body);
                        break;
                    }
                    token = answer.text("refresh_token");
                    chain.push(token.clone());
                }
                chain
            }
        })
        .await;
        let seen: BTreeSet<String> = chains.into_iter().flatten().collect();
        let mut good = 0;
        for token in &seen {
            let answer = doors.call(round, "first", "/introspect", &[("token", token)]).await;
            good += usize::from(answer.body["active"] == true);
        }
        assert!(good <= 1 && (round > 0 || good == 1), "{good} of {} refresh tokens of one grant are good", seen.len());
        survivors += good;
    }
    assert!(survivors > 0);
}

/// What ends tokens, as somebody does it. It has happened when this has answered.
pub type End<'a> = Box<dyn FnOnce() -> LocalBoxFuture<'a, ()> + 'a>;

/// One sign-in of alice at a client.
pub struct Granted {
    pub client_id: &'static str,
    pub browser: Browser,
    /// Where a click signs out.
    pub confirm: Page,
    pub code: String,
    pub tokens: TokenAnswer,
}

impl Granted {
    /// With a code that is not redeemed yet.
    pub async fn code(doors: &Doors, client_id: &'static str, scope: &str) -> Self {
        let mut browser = doors.browser(0);
        let code = doors.code_for(&mut browser, client_id, scope).await;
        let confirm = browser.get("/logout").await;
        Self { client_id, browser, confirm, code, tokens: TokenAnswer { status: 0, body: json!({}) } }
    }

    pub async fn tokens(doors: &Doors, client_id: &'static str, scope: &str) -> Self {
        let mut granted = Self::code(doors, client_id, scope).await;
        granted.tokens = doors.redeem(1, client_id, &granted.code).await;
        assert_eq!(granted.tokens.status, 200, "{}", granted.tokens.body);
        granted
    }

    pub async fn sign_out(self, doors: &Doors, door: usize) {
        let page = doors.moved(&self.browser, door).submit(&self.confirm, &[("action", "logout")]).await;
        assert!(page.body.contains("signed out"), "{}", page.body);
    }

    pub async fn revoke(self, doors: &Doors, door: usize) {
        let token = self.tokens.text("refresh_token");
        let answer = doors.call(door, self.client_id, "/revoke", &[("token", &token)]).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }

    pub async fn replay(self, doors: &Doors, door: usize) {
        let answer = doors.redeem(door, self.client_id, &self.code).await;
        assert_eq!((answer.status, answer.error()), (400, "invalid_grant"));
    }
}

/// What racers and those who end them know of each other.
#[derive(Default)]
struct Race {
    /// Answers with tokens, of all racers.
    done: AtomicUsize,
    /// The end has answered.
    ended: AtomicBool,
}

/// Refreshes, each from what the one before got, until somebody ends it.
async fn refresh_to_the_end(
    doors: Doors,
    door: usize,
    client_id: &'static str,
    first: TokenAnswer,
    race: Arc<Race>,
) -> Vec<TokenAnswer> {
    let mut answers = vec![first];
    loop {
        let token = answers[answers.len() - 1].text("refresh_token");
        let too_late = race.ended.load(Ordering::SeqCst);
        let answer = doors.refresh(door + answers.len(), client_id, &token).await;
        if is_refused(&answer) {
            return answers;
        }
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert!(!too_late, "a refresh that began after the end had answered gave tokens");
        answers.push(answer);
        race.done.fetch_add(1, Ordering::SeqCst);
    }
}

/// Rounds in which tokens are refreshed without a pause until `end` has answered; each begins the end a little later
/// than the one before. Not one of all the tokens lives. `again` makes the next round possible.
pub async fn refreshes_against<'a>(
    doors: &Doors,
    rounds: usize,
    mut end: impl FnMut(Granted) -> End<'a>,
    mut again: impl AsyncFnMut(),
) {
    for round in 0..rounds {
        // A token that rotates has one holder; the other kind many tabs may use.
        let (client_id, racers) = if round % 2 == 0 { ("first", 3) } else { ("spa", 1) };
        let granted = Granted::tokens(doors, client_id, "openid").await;
        let race = Arc::new(Race::default());
        let racing: Vec<_> = (0..racers)
            .map(|n| refresh_to_the_end(doors.clone(), n, client_id, granted.tokens.clone(), Arc::clone(&race)))
            .map(tokio::spawn)
            .collect();
        while race.done.load(Ordering::SeqCst) < round && !racing.iter().all(JoinHandle::is_finished) {
            tokio::task::yield_now().await;
        }
        end(granted)().await;
        race.ended.store(true, Ordering::SeqCst);
        let mut handed_out = Vec::new();
        for racer in racing {
            handed_out.extend(racer.await.expect("no panic"));
        }
        assert!(handed_out.len() > round, "there was a race");
        for tokens in &handed_out {
            assert_dead(doors, client_id, tokens).await;
        }
        again().await;
    }
}

/// Rounds in which a code is redeemed while `end` happens, now the one a little earlier and now the other. Where there
/// were tokens they are dead. `again` makes the next round possible.
pub async fn redemption_against<'a>(
    doors: &Doors,
    rounds: usize,
    mut end: impl FnMut(Granted) -> End<'a>,
    mut again: impl AsyncFnMut(),
) {
    let mut winners = 0;
    for round in 0..rounds {
        let client_id = if round % 2 == 0 { "first" } else { "spa" };
        let granted = Granted::code(doors, client_id, "openid").await;
        let redeeming = {
            let (doors, code) = (doors.clone(), granted.code.clone());
            async move { doors.redeem(1, client_id, &code).await }
        };
        let end = end(granted);
        // The first and the last round are no races: one order each, for certain.
        let answer = if round == 0 {
            end().await;
            redeeming.await
        } else if round + 1 == rounds {
            let answer = redeeming.await;
            end().await;
            answer
        } else {
            let redeeming = tokio::spawn(redeeming);
            for _ in 0..round * 4 {
                tokio::task::yield_now().await;
            }
            end().await;
            redeeming.await.expect("no panic")
        };
        if answer.status == 200 {
            winners += 1;
            assert_dead(doors, client_id, &answer).await;
        } else {
            assert!(is_refused(&answer), "{}", answer.body);
        }
        assert!(round > 0 || answer.status != 200);
        assert!(round + 1 < rounds || answer.status == 200, "{}", answer.body);
        again().await;
    }
    assert!(winners > 0);
}

/// What an operator does to alice or to the apps; her password stays the same text, so that the next round can begin.
async fn operate(provider: &Provider, what: &str) {
    let (alice, now) = (provider.user_id("alice").await, provider.app.now());
    match what {
        "disable" => provider.set_user_disabled("alice", true).await,
        "enable" => provider.set_user_disabled("alice", false).await,
        "password" => {
            let hash = provider.app.passwords.hash(Secret::new("correct horse".to_owned()), [7; 16]).await;
            let hash = hash.expect("no overload").expect("a hash");
            assert!(provider.app.store.set_password(alice, hash, told(), now).await.expect("an answer"));
        }
        "client off" | "client on" => {
            for id in ["first", "spa"] {
                provider.set_client_disabled(id, what == "client off").await;
            }
        }
        _ => panic!("{what}"),
    }
}

/// A client is switched off or on at one door at once, and at the other within a second.
async fn other_door_says(doors: &Doors, error: &str) {
    for client_id in ["first", "spa"] {
        wait_for("the other door", async || {
            let answer = doors.refresh(1, client_id, "x").await;
            (answer.error() == error).then_some(())
        })
        .await;
    }
}

on_both_databases! {
    async fn attack_39_fifty_redemptions_at_once_give_one_answer_and_end_the_grant(provider: Provider) {
        let doors = Doors::of(&provider).await;
        for client_id in ["first", "spa"] {
            many_redemptions_of_one_code(&doors, client_id).await;
        }
        // One alone has what it should have.
        let alone = Granted::tokens(&doors, "first", "openid").await;
        assert_eq!(doors.userinfo(0, &alone.tokens.text("access_token")).await.status, 200);
    }

    async fn attack_73_fifty_refreshes_at_once_agree_on_one_successor(provider: Provider) {
        let doors = Doors::of(&provider).await;
        many_refreshes_of_one_rotating_token(&doors).await;
        let always = "[tokens]\nrefresh_token_rotation = \"always\"\n";
        let rotating = Provider::start_with(provider.backend(), &provider.issuer, always).await;
        many_who_each_go_on(&Doors::of(&rotating).await).await;
    }

    async fn attack_74_nothing_lives_after_a_revocation_was_answered(provider: Provider) {
        let doors = Doors::of(&provider).await;
        let bystander = Granted::tokens(&doors, "spa", "openid+offline_access").await;
        let revoke = |granted: Granted| -> End<'_> {
            let doors = &doors;
            Box::new(move || Box::pin(granted.revoke(doors, 0)))
        };
        refreshes_against(&doors, 12, revoke, async || ()).await;
        let replay = |granted: Granted| -> End<'_> {
            let doors = &doors;
            Box::new(move || Box::pin(granted.replay(doors, 0)))
        };
        refreshes_against(&doors, 6, replay, async || ()).await;
        assert_eq!(doors.refresh(0, "spa", &bystander.tokens.text("refresh_token")).await.status, 200);
    }

    async fn attack_74_nothing_lives_after_a_sign_out_was_answered(provider: Provider) {
        let doors = Doors::of(&provider).await;
        let elsewhere = Granted::tokens(&doors, "first", "openid").await;
        let sign_out = |granted: Granted| -> End<'_> {
            let doors = &doors;
            Box::new(move || Box::pin(granted.sign_out(doors, 0)))
        };
        refreshes_against(&doors, 8, sign_out, async || ()).await;
        redemption_against(&doors, 12, sign_out, async || ()).await;
        assert_eq!(doors.refresh(0, "first", &elsewhere.tokens.text("refresh_token")).await.status, 200);
    }

    async fn attack_74_nothing_lives_after_a_person_was_disabled_or_their_password_changed(provider: Provider) {
        let doors = Doors::of(&provider).await;
        for what in ["disable", "password"] {
            let end = |_: Granted| -> End<'_> {
                let provider = &provider;
                Box::new(move || Box::pin(operate(provider, what)))
            };
            refreshes_against(&doors, 6, end, async || operate(&provider, "enable").await).await;
            redemption_against(&doors, 10, end, async || operate(&provider, "enable").await).await;
        }
    }

    async fn attack_74_nothing_lives_while_a_client_is_disabled(provider: Provider) {
        let doors = Doors::of(&provider).await;
        let end = |_: Granted| -> End<'_> {
            let (doors, provider) = (&doors, &provider);
            Box::new(move || {
                Box::pin(async move {
                    operate(provider, "client off").await;
                    other_door_says(doors, "invalid_client").await;
                })
            })
        };
        let again = async || {
            operate(&provider, "client on").await;
            other_door_says(&doors, "invalid_grant").await;
        };
        refreshes_against(&doors, 6, end, again).await;
        redemption_against(&doors, 6, end, again).await;
        let alive = Granted::tokens(&doors, "first", "openid").await;
        assert_eq!(doors.userinfo(0, &alive.tokens.text("access_token")).await.status, 200);
    }
}
