//! The life of a signing key, as rules without IO: published before its first use, signing, published for as long as
//! a token that it signed may live, gone. Every process reads the same rows by the same clock and comes to the same
//! answer, so all of them rotate together.

use std::collections::BTreeSet;

use crate::protocol::client::{SigningAlg, wire_enum};
use crate::protocol::metadata::JWKS_LIFETIME;
use crate::protocol::time::{Span, Timestamp};
use crate::store::keys::StoredKey;

/// Algorithms that always have a key: the default of every client, and the fast one that they all know.
pub const ALWAYS: [SigningAlg; 2] = [SigningAlg::Rs256, SigningAlg::Es256];

/// How long a key is published before it signs: every copy of `/jwks` that obeys its `Cache-Control` has it by then,
/// and a minute is for clocks that differ and processes that learn of it.
pub const PUBLISHED_AHEAD: Span = Span::from_millis(JWKS_LIFETIME.millis() + 60_000);
/// Where nobody is in a hurry, relying parties get more time than their caches promise.
const AUTOMATIC_AHEAD: Span = Span::days(7);
/// How long a key stays published after the last token that it signed has expired: for clocks that differ.
const MARGIN: Span = Span::minutes(5);

wire_enum! {
    /// Where in its life a key is.
    pub enum State {
        /// Published, and not used yet.
        Next = "next",
        /// Signs.
        Active = "active",
        /// Signs no more, and is published while tokens that it signed live.
        Passive = "passive",
        /// Recognised no more.
        Retired = "retired",
    }
}

/// What the configuration and the clients want of the keys.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Algorithms that somebody's tokens are signed with.
    pub wanted: BTreeSet<SigningAlg>,
    /// A key is replaced so long after its first use; zero: only by hand.
    pub rotate_every: Span,
    /// The longest lifetime that a token signed now may have.
    pub longest_token: Span,
}

/// Something that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a key of this algorithm that is used from then on.
    Make { alg: SigningAlg, active_from: Timestamp },
    /// Remember that tokens of this key may live so long.
    NoteLongest { kid: String, longest: Span },
    /// No token of this key is left.
    Retire { kid: String },
}

/// The keys of one algorithm that are published, in the order in which they sign.
fn published(keys: &[StoredKey], alg: SigningAlg) -> Vec<&StoredKey> {
    let mut own: Vec<&StoredKey> = keys.iter().filter(|key| key.alg == alg && key.retired_at.is_none()).collect();
    own.sort_by_key(|key| order(key));
    own
}

fn order(key: &StoredKey) -> (Timestamp, i64) {
    (key.active_from, key.serial)
}

/// The key of an algorithm that signs: the latest whose time has come. After a clock was set back that may be none of
/// them; then it is the earliest.
pub fn active(keys: &[StoredKey], alg: SigningAlg, now: Timestamp) -> Option<&StoredKey> {
    let own = published(keys, alg);
    own.iter().rev().find(|key| key.active_from <= now).or(own.first()).copied()
}

/// A key that waits for its time.
pub fn next(keys: &[StoredKey], alg: SigningAlg, now: Timestamp) -> Option<&StoredKey> {
    let active = active(keys, alg, now).map(order);
    published(keys, alg).into_iter().find(|key| key.active_from > now && Some(order(key)) != active)
}

pub fn state(key: &StoredKey, keys: &[StoredKey], now: Timestamp) -> State {
    if key.retired_at.is_some() {
        return State::Retired;
    }
    match active(keys, key.alg, now) {
        Some(active) if active.kid == key.kid => State::Active,
        Some(active) if order(active) > order(key) => State::Passive,
        _ => State::Next,
    }
}

/// When a key was or will be replaced: the first use of the one after it, unless that was retired before its time.
pub fn replaced_at(key: &StoredKey, keys: &[StoredKey]) -> Option<Timestamp> {
    let later = keys.iter().filter(|other| other.alg == key.alg && order(other) > order(key));
    let used = later.filter(|other| other.retired_at.is_none_or(|retired| retired > other.active_from));
    used.map(|other| other.active_from).min()
}

/// When the last token of a replaced key has expired.
pub fn retires_at(key: &StoredKey, keys: &[StoredKey], policy: &Policy) -> Option<Timestamp> {
    let longest = key.longest_token.unwrap_or(policy.longest_token);
    Some(replaced_at(key, keys)? + longest + MARGIN)
}

/// Everything that is due now.
pub fn due(keys: &[StoredKey], policy: &Policy, now: Timestamp) -> Vec<Step> {
    let mut steps = Vec::new();
    for alg in &policy.wanted {
        match active(keys, *alg, now) {
            // Nobody can have relied on this algorithm before, so its first key may sign at once.
            None => steps.push(Step::Make { alg: *alg, active_from: now }),
            Some(active) if next(keys, *alg, now).is_none() => steps.extend(replacement(active, policy, now)),
            Some(_) => {}
        }
    }
    for key in keys.iter().filter(|key| key.retired_at.is_none()) {
        let state = state(key, keys, now);
        if state != State::Passive && key.longest_token.is_none_or(|longest| longest < policy.longest_token) {
            steps.push(Step::NoteLongest { kid: key.kid.clone(), longest: policy.longest_token });
        }
        if state == State::Passive && retires_at(key, keys, policy).is_some_and(|at| at <= now) {
            steps.push(Step::Retire { kid: key.kid.clone() });
        }
    }
    steps
}

fn replacement(active: &StoredKey, policy: &Policy, now: Timestamp) -> Option<Step> {
    if policy.rotate_every == Span::ZERO {
        return None;
    }
    let ahead = AUTOMATIC_AHEAD.min(Span::from_millis(policy.rotate_every.millis() / 4)).max(PUBLISHED_AHEAD);
    let wanted_at = active.active_from + policy.rotate_every;
    (now >= wanted_at - ahead)
        .then(|| Step::Make { alg: active.alg, active_from: wanted_at.max(now + PUBLISHED_AHEAD) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;
    const HOUR: Span = Span::hours(1);

    fn key(kid: &str, serial: i64, active_from: i64, retired_at: Option<i64>) -> StoredKey {
        StoredKey {
            kid: kid.to_owned(),
            alg: SigningAlg::Es256,
            serial,
            public_jwk: serde_json::Map::new(),
            sealed_private: String::new(),
            created_at: Timestamp(0),
            active_from: Timestamp(active_from),
            retired_at: retired_at.map(Timestamp),
            longest_token: Some(HOUR),
        }
    }

    fn policy(rotate_days: i64) -> Policy {
        Policy {
            wanted: BTreeSet::from([SigningAlg::Es256]),
            rotate_every: Span::days(rotate_days),
            longest_token: HOUR,
        }
    }

    #[test]
    fn the_latest_whose_time_has_come_signs() {
        let keys = [key("a", 1, 0, None), key("b", 2, 100, None), key("c", 3, 200, None)];
        for (now, signs, states) in [
            (50, "a", [State::Active, State::Next, State::Next]),
            (100, "b", [State::Passive, State::Active, State::Next]),
            (250, "c", [State::Passive, State::Passive, State::Active]),
            // The clock was set back behind the first.
            (-5, "a", [State::Active, State::Next, State::Next]),
        ] {
            let now = Timestamp(now);
            assert_eq!(active(&keys, SigningAlg::Es256, now).map(|key| key.kid.as_str()), Some(signs), "{now:?}");
            assert_eq!(keys.each_ref().map(|key| state(key, &keys, now)), states, "{now:?}");
        }
        assert_eq!(active(&keys, SigningAlg::Rs256, Timestamp(50)).map(|key| &key.kid), None);
    }

    #[test]
    fn a_key_is_made_ahead_of_its_time_and_only_once() {
        let first = [key("a", 1, 0, None)];
        let make = |active_from| vec![Step::Make { alg: SigningAlg::Es256, active_from: Timestamp(active_from) }];
        let ahead = PUBLISHED_AHEAD.millis();
        for (name, keys, days, now, expected) in [
            ("none yet", &[][..], 90, 5, make(5)),
            ("long before", &first, 90, 82 * DAY, vec![]),
            ("a week before", &first, 90, 83 * DAY, make(90 * DAY)),
            ("late: published ahead all the same", &first, 90, 100 * DAY, make(100 * DAY + ahead)),
            ("a short life", &first, 4, 3 * DAY, make(4 * DAY)),
            ("never", &first, 0, 1000 * DAY, vec![]),
            ("one waits", &[key("a", 1, 0, None), key("b", 2, 90 * DAY, None)], 90, 85 * DAY, vec![]),
        ] {
            assert_eq!(due(keys, &policy(days), Timestamp(now)), expected, "{name}");
        }
    }

    #[test]
    fn a_replaced_key_goes_when_its_last_token_has_expired() {
        let keys = [key("a", 1, 0, None), key("b", 2, 10 * DAY, None)];
        let gone = 10 * DAY + HOUR.millis() + MARGIN.millis();
        let retire = vec![Step::Retire { kid: "a".to_owned() }];
        assert_eq!(retires_at(&keys[0], &keys, &policy(0)), Some(Timestamp(gone)));
        assert_eq!(due(&keys, &policy(0), Timestamp(gone - 1)), vec![]);
        assert_eq!(due(&keys, &policy(0), Timestamp(gone)), retire);
        // What is shortened later does not shorten tokens that are out; what is lengthened counts for active keys only.
        let short = Policy { longest_token: Span::minutes(1), ..policy(0) };
        assert_eq!(due(&keys, &short, Timestamp(gone - 1)), vec![]);
        let long = Policy { longest_token: Span::days(7), ..policy(0) };
        let noted = Step::NoteLongest { kid: "b".to_owned(), longest: Span::days(7) };
        assert_eq!(due(&keys, &long, Timestamp(gone)), [retire, vec![noted]].concat());
    }

    #[test]
    fn a_successor_that_was_retired_before_its_time_replaced_nobody() {
        let keys = [key("a", 1, 0, None), key("b", 2, 100, Some(50)), key("c", 3, 300, None)];
        assert_eq!(replaced_at(&keys[0], &keys), Some(Timestamp(300)));
        // One that was retired while it signed did replace it.
        let keys = [key("a", 1, 0, None), key("b", 2, 100, Some(200)), key("c", 3, 200, None)];
        assert_eq!(replaced_at(&keys[0], &keys), Some(Timestamp(100)));
    }
}
