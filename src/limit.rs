//! Rate limits: what may be tried how often, by whom. One enum owns each action's bucket, places, window and words;
//! the attempts themselves are rows, so that processes share them and a restart forgets none.

use std::net::IpAddr;

use crate::config::{RateLimit, RateLimits};
use crate::crypto::digest::{base64url, hmac_sha256};
use crate::protocol::time::{Span, Timestamp};
use crate::store::limits::{Ask, Reserved, Settled, Taken};
use crate::store::{Result, Store};
use crate::telemetry::metrics;

/// How many accounts may be tried to the end from one network: enough for a school behind one address, where those who
/// know their password give their place back.
const ACCOUNTS_PER_NETWORK: usize = 10;
/// How many networks may try one account to the end within an hour before strangers have to wait.
const NETWORKS_PER_ACCOUNT: usize = 20;

/// How many people may make an account from one network: whole classes do at once.
const SIGN_UPS_PER_ATTEMPT: usize = 40;
/// What apps of the username API show.
pub const TOO_MANY_AUTHENTICATION_ATTEMPTS: &str = "Too many authentication attempts";

/// Something that is counted.
#[derive(Clone, Copy, Debug)]
pub enum Action<'a> {
    /// A password for an account, from one network, whether or not there is such an account. All doors share it.
    SignIn { account: Account<'a>, from: Option<IpAddr> },
    /// A password for anybody, from one network: bounds how many accounts can be tried.
    SignInFrom { from: Option<IpAddr> },
    /// A password for an account, from anywhere. It stops nobody: whoever could fill it could lock the owner out.
    SignInTo { account: Account<'a> },
    /// A sign-up or sign-in by the username API, whatever comes of it.
    UsernameApi { from: Option<IpAddr> },
    /// An account of one's own, from one network.
    SignUp { from: Option<IpAddr> },
    /// A request too large for a URL, which costs a row.
    ParkTicket { from: Option<IpAddr> },
    /// A bad API key, from one network.
    ApiKey { from: Option<IpAddr> },
}

/// Whose password was tried.
#[derive(Clone, Copy, Debug)]
pub enum Account<'a> {
    /// Somebody's, by their `sub`: all their names are one account.
    Known(&'a str),
    /// Nobody's: the name as it would be looked up.
    Unknown(&'a str),
}

/// How often, by whom, and what those are told who come more often.
struct Rule {
    name: &'static str,
    places: usize,
    window: Span,
    /// Whether the next one has to wait, or is only known to be one too many.
    binds: bool,
    /// Whoever shares all of these shares the bucket.
    key: Vec<String>,
    message: &'static str,
}

impl Action<'_> {
    /// Every [`Rule::name`].
    pub const NAMES: [&'static str; 7] =
        ["sign_in", "sign_in_from", "sign_in_to", "username_api", "sign_up", "park_ticket", "api_key"];

    fn rule(self, limits: &RateLimits) -> Rule {
        let RateLimit { attempts, window } = limits.login;
        let attempts = attempts as usize;
        let rule = |name, places, key| {
            let message = "too many sign-in attempts; wait a while";
            Rule { name, places, window, binds: true, key, message }
        };
        match self {
            Self::SignIn { account, from } => rule("sign_in", attempts, vec![account.key(), prefix(from)]),
            Self::SignInFrom { from } => rule("sign_in_from", attempts * ACCOUNTS_PER_NETWORK, vec![prefix(from)]),
            Self::SignInTo { account } => {
                let rule = rule("sign_in_to", attempts * NETWORKS_PER_ACCOUNT, vec![account.key()]);
                Rule { window: Span::hours(1), binds: false, ..rule }
            }
            Self::UsernameApi { from } => {
                let rule = rule("username_api", attempts, vec![prefix(from)]);
                Rule { message: TOO_MANY_AUTHENTICATION_ATTEMPTS, ..rule }
            }
            Self::SignUp { from } => {
                let rule = rule("sign_up", attempts * SIGN_UPS_PER_ATTEMPT, vec![prefix(from)]);
                Rule { message: "too many sign-ups from this network; wait a while", ..rule }
            }
            Self::ParkTicket { from } => Rule {
                window: Span::minutes(15),
                message: "too many large requests from this network; wait a while",
                ..rule("park_ticket", 30, vec![prefix(from)])
            },
            Self::ApiKey { from } => Rule {
                window: limits.api_key.window,
                message: "too many bad credentials from this network; wait a while",
                ..rule("api_key", limits.api_key.attempts as usize, vec![prefix(from)])
            },
        }
    }
}

impl Account<'_> {
    fn key(self) -> String {
        match self {
            Self::Known(sub) => format!("sub {sub}"),
            Self::Unknown(name) => format!("name {name}"),
        }
    }
}

pub struct Limiter {
    store: Store,
    /// Names of accounts stand in buckets only as their authentication codes.
    key: [u8; 32],
    limits: RateLimits,
}

/// A place that was taken, to be given back or forgotten.
#[derive(Clone, Debug)]
pub struct Place {
    bucket: String,
    taken_at: Timestamp,
    pub quota: Quota,
}

/// The places that one password for an account takes.
#[derive(Debug)]
pub struct SignInPlaces {
    pub network: Place,
    /// The account's, in this network.
    pub own: Place,
    /// The account's, in all networks; `None` while it is tried from everywhere.
    pub everywhere: Option<Place>,
}

impl Place {
    fn refunded(self) -> Settled {
        Settled::Refunded(self.bucket, self.taken_at)
    }
}

/// Where somebody stands with a limit, as `RateLimit` headers tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    pub name: &'static str,
    pub places: usize,
    pub window: Span,
    /// Attempts that are left.
    pub left: usize,
    /// Until another place becomes free by itself.
    pub frees_in: Span,
}

/// No place is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttled {
    pub retry_after: Span,
    /// For whoever sent it.
    pub message: &'static str,
    pub quota: Quota,
}

impl Limiter {
    pub fn new(store: Store, key: [u8; 32], limits: RateLimits) -> Self {
        Self { store, key, limits }
    }

    /// Takes a place before the work is done, so that attempts at once cannot outnumber the places.
    pub async fn reserve(&self, action: Action<'_>, now: Timestamp) -> Result<std::result::Result<Place, Throttled>> {
        let taken = self.reserve_all(&[action], now).await?;
        Ok(taken.and_then(|places| places.into_iter().flatten().next().ok_or_else(|| self.full(action, now))))
    }

    /// The places of one password for an account, or none of them. The network's comes first, so that one which has
    /// used up its own leaves no trace of the accounts it goes on trying.
    pub async fn reserve_sign_in(
        &self,
        account: Account<'_>,
        from: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<std::result::Result<SignInPlaces, Throttled>> {
        let own = Action::SignIn { account, from };
        let actions = [Action::SignInFrom { from }, own, Action::SignInTo { account }];
        Ok(self.reserve_all(&actions, now).await?.and_then(|places| {
            let mut places = places.into_iter();
            match (places.next().flatten(), places.next().flatten()) {
                (Some(network), Some(own)) => Ok(SignInPlaces { network, own, everywhere: places.next().flatten() }),
                _ => Err(self.full(own, now)),
            }
        }))
    }

    /// Several at once, or none of them. `None` for one that stops nobody and had no place free.
    async fn reserve_all(
        &self,
        actions: &[Action<'_>],
        now: Timestamp,
    ) -> Result<std::result::Result<Vec<Option<Place>>, Throttled>> {
        let rules: Vec<Rule> = actions.iter().map(|action| action.rule(&self.limits)).collect();
        let asks: Vec<Ask> = rules.iter().map(|rule| self.ask(rule)).collect();
        let buckets: Vec<String> = asks.iter().map(|ask| ask.bucket.clone()).collect();
        match self.store.reserve(asks, now).await? {
            Reserved::No { which, free_at } => {
                let rule = &rules[which];
                metrics::rate_limited(rule.name);
                Ok(Err(throttled(rule, free_at, now)))
            }
            Reserved::Yes(taken) => {
                let each = rules.iter().zip(buckets).zip(taken);
                let place = |((rule, bucket), taken): ((&Rule, String), Option<Taken>)| {
                    if taken.is_none() {
                        metrics::rate_limited(rule.name);
                    }
                    taken.map(|taken| Place { bucket, taken_at: now, quota: quota(rule, taken, now) })
                };
                Ok(Ok(each.map(place).collect()))
            }
        }
    }

    /// Gives a place back: the attempt never took place.
    pub async fn refund(&self, place: Place) -> Result<()> {
        self.store.settle(vec![place.refunded()]).await
    }

    /// The same for the places of a password that was not looked at.
    pub async fn refund_sign_in(&self, places: SignInPlaces) -> Result<()> {
        let SignInPlaces { network, own, everywhere } = places;
        let settled = [network, own].into_iter().chain(everywhere).map(Place::refunded);
        self.store.settle(settled.collect()).await
    }

    /// After the right password: earlier attempts for the account are forgiven, the other places are given back.
    pub async fn forgive(&self, places: SignInPlaces) -> Result<()> {
        let SignInPlaces { network, own, everywhere } = places;
        let settled = [network.refunded(), Settled::Forgiven(own.bucket)].into_iter();
        self.store.settle(settled.chain(everywhere.map(Place::refunded)).collect()).await
    }

    /// No place is free, and nobody knows for how long.
    fn full(&self, action: Action<'_>, now: Timestamp) -> Throttled {
        throttled(&action.rule(&self.limits), now + Span::from_secs(1), now)
    }

    fn ask(&self, rule: &Rule) -> Ask {
        let parts: Vec<&[u8]> = rule.key.iter().map(String::as_bytes).collect();
        let bucket = format!("{}.{}", rule.name, base64url(&hmac_sha256(&self.key, &parts)[..16]));
        Ask { bucket, places: rule.places, window: rule.window, binds: rule.binds }
    }
}

fn quota(rule: &Rule, taken: Taken, now: Timestamp) -> Quota {
    let Taken { left, frees_at } = taken;
    Quota { name: rule.name, places: rule.places, window: rule.window, left, frees_in: frees_at - now }
}

fn throttled(rule: &Rule, free_at: Timestamp, now: Timestamp) -> Throttled {
    let quota = quota(rule, Taken { left: 0, frees_at: free_at }, now);
    Throttled { retry_after: quota.frees_in, message: rule.message, quota }
}

/// The network that counts as one client: an IPv4 address, or the /64 that an IPv6 customer has to themselves.
/// Addresses that only wrap an IPv4 one (mapped, NAT64) count as that one.
pub fn prefix(address: Option<IpAddr>) -> String {
    let v6 = match address {
        None => return "local".to_owned(),
        Some(IpAddr::V4(v4)) => return v4.to_string(),
        Some(IpAddr::V6(v6)) => v6,
    };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return v4.to_string();
    }
    let segments = v6.segments();
    if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        let [.., a, b, c, d] = v6.octets();
        return std::net::Ipv4Addr::new(a, b, c, d).to_string();
    }
    format!("{:x}:{:x}:{:x}:{:x}::/64", segments[0], segments[1], segments[2], segments[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_client_share_a_prefix() {
        for (address, expected) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("64:ff9b::c000:207", "192.0.2.7"),
            ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
            ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
            ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ] {
            assert_eq!(prefix(address.parse().ok()), expected, "{address}");
        }
        assert_eq!(prefix(None), "local");
    }
}
