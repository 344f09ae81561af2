//! The cookie of a browser that somebody signed in with before: for each of the last few people when that was, with an
//! authentication code that names them to us alone. It opens nothing. Whoever has it is not held up when strangers try
//! somebody's password from everywhere.

use super::digest::{base64url, constant_time_eq, from_base64url, hmac_sha256};
use crate::protocol::ids::UserId;
use crate::protocol::time::{Span, Timestamp};

/// How long a sign-in counts.
pub const LIFETIME: Span = Span::days(180);
/// People that one browser is known for.
const PEOPLE: usize = 4;

const TIME_LENGTH: usize = 8;
const CODE_LENGTH: usize = 16;
/// Stands between people; no base64url holds it.
const SEPARATOR: char = '.';

/// The cookie after `user` signed in, in place of the one that the browser had.
pub fn remember(key: &[u8; 32], user: &UserId, before: Option<&str>, now: Timestamp) -> String {
    let at = now.millis().to_be_bytes();
    let own = base64url(&[&at[..], &code(key, user, &at)].concat());
    let others = before.into_iter().flat_map(entries).filter(|entry| !is_of(key, entry, user));
    let kept = std::iter::once(own.as_str()).chain(others).take(PEOPLE);
    kept.collect::<Vec<_>>().join(&SEPARATOR.to_string())
}

/// Whether `user` signed in with the browser that has this cookie.
pub fn knows(key: &[u8; 32], user: &UserId, cookie: &str, now: Timestamp) -> bool {
    let since = now - LIFETIME;
    entries(cookie).any(|entry| is_of(key, entry, user) && signed_in_at(entry).is_some_and(|at| at > since))
}

/// Texts that could be entries; never more than there can be.
fn entries(cookie: &str) -> impl Iterator<Item = &str> {
    let entries = cookie.split(SEPARATOR).take(PEOPLE);
    entries.filter(|entry| from_base64url(entry).is_some_and(|bytes| bytes.len() == TIME_LENGTH + CODE_LENGTH))
}

fn is_of(key: &[u8; 32], entry: &str, user: &UserId) -> bool {
    let Some(bytes) = from_base64url(entry) else { return false };
    let Some((at, theirs)) = bytes.split_at_checked(TIME_LENGTH) else { return false };
    constant_time_eq(theirs, &code(key, user, at))
}

fn signed_in_at(entry: &str) -> Option<Timestamp> {
    let bytes = from_base64url(entry)?;
    Some(Timestamp(i64::from_be_bytes(bytes.get(..TIME_LENGTH)?.try_into().ok()?)))
}

fn code(key: &[u8; 32], user: &UserId, at: &[u8]) -> [u8; CODE_LENGTH] {
    let mut code = [0; CODE_LENGTH];
    code.copy_from_slice(&hmac_sha256(key, &[at, user.as_str().as_bytes()])[..CODE_LENGTH]);
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [1; 32];
    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn id(name: &str) -> UserId {
        UserId::new(name)
    }

    #[test]
    fn a_browser_is_known_for_those_who_signed_in_with_it() {
        let mut cookie = remember(&KEY, &id("a"), None, NOW);
        assert!(knows(&KEY, &id("a"), &cookie, NOW) && !knows(&KEY, &id("b"), &cookie, NOW));
        assert!(!knows(&[2; 32], &id("a"), &cookie, NOW), "another key");
        for name in ["b", "c", "a", "d", "e"] {
            cookie = remember(&KEY, &id(name), Some(&cookie), NOW);
        }
        let known = ["a", "b", "c", "d", "e"].map(|name| knows(&KEY, &id(name), &cookie, NOW));
        assert_eq!(known, [true, false, true, true, true], "the last four");
        let later = NOW + LIFETIME;
        assert!(!knows(&KEY, &id("a"), &cookie, later), "it is forgotten");
    }

    #[test]
    fn nobody_else_makes_one() {
        let cookie = remember(&KEY, &id("a"), None, NOW);
        let mut bytes = from_base64url(&cookie).unwrap();
        bytes[0] ^= 1;
        for text in ["", ".", "a", &cookie[1..], &base64url(&bytes), &format!("x.x.x.x.{cookie}")] {
            assert!(!knows(&KEY, &id("a"), text, NOW), "{text}");
        }
        let planted = remember(&KEY, &id("b"), Some("nonsense.;=\"."), NOW);
        assert!(knows(&KEY, &id("b"), &planted, NOW) && planted.len() == 32, "{planted}");
    }
}
