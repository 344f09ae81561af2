//! Rate limits: what may be tried how often, by whom. One enum owns each action's bucket, places and window; the
//! attempts themselves are rows, so that processes share them and a restart forgets none.

use std::net::IpAddr;

use crate::config::RateLimits;
use crate::crypto::digest::{base64url, hmac_sha256};
use crate::protocol::time::{Span, Timestamp};
use crate::store::limits::Reserved;
use crate::store::{Result, Store};
use crate::telemetry::metrics;

/// How many names may be tried to the end from one network: enough for a school behind one address, where those who
/// know their password give their place back.
const NAMES_PER_NETWORK: usize = 10;

/// Something that is counted.
#[derive(Clone, Copy, Debug)]
pub enum Action<'a> {
    /// A password for a login name, from one network, whether or not the name is anybody's.
    SignIn { name: &'a str, from: Option<IpAddr> },
    /// A password for anybody, from one network: bounds how many names can be tried.
    SignInFrom { from: Option<IpAddr> },
    /// A request too large for a URL, which costs a row.
    ParkTicket { from: Option<IpAddr> },
    /// A bad API key, from one network.
    ApiKey { from: Option<IpAddr> },
}

impl Action<'_> {
    /// Every [`Action::name`].
    pub const NAMES: [&'static str; 4] = ["sign_in", "sign_in_from", "park_ticket", "api_key"];

    /// Its name in buckets and metrics.
    const fn name(&self) -> &'static str {
        match self {
            Self::SignIn { .. } => "sign_in",
            Self::SignInFrom { .. } => "sign_in_from",
            Self::ParkTicket { .. } => "park_ticket",
            Self::ApiKey { .. } => "api_key",
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
    /// Attempts that are left in the window.
    pub left: usize,
}

/// No place is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Throttled {
    pub retry_after: Span,
}

impl Limiter {
    pub fn new(store: Store, key: [u8; 32], limits: RateLimits) -> Self {
        Self { store, key, limits }
    }

    /// Takes a place before the work is done, so that attempts at once cannot outnumber the places.
    pub async fn reserve(&self, action: Action<'_>, now: Timestamp) -> Result<std::result::Result<Place, Throttled>> {
        let (bucket, places, window) = self.bucket(action);
        Ok(match self.store.reserve(bucket.clone(), places, window, now).await? {
            Reserved::Yes { left } => Ok(Place { bucket, taken_at: now, left }),
            Reserved::No { free_at } => {
                metrics::rate_limited(action.name());
                Err(Throttled { retry_after: free_at - now })
            }
        })
    }

    /// Gives the place back: the attempt never took place.
    pub async fn refund(&self, place: Place) -> Result<()> {
        self.store.refund(place.bucket, place.taken_at).await
    }

    /// Forgets the attempts of the bucket: the right password was among them.
    pub async fn forgive(&self, place: Place) -> Result<()> {
        self.store.clear_limit(place.bucket).await
    }

    fn bucket(&self, action: Action<'_>) -> (String, usize, Span) {
        let (parts, places, window) = match action {
            Action::SignIn { name, from } => {
                (vec![name.to_owned(), prefix(from)], self.limits.login.attempts as usize, self.limits.login.window)
            }
            Action::SignInFrom { from } => {
                let places = self.limits.login.attempts as usize * NAMES_PER_NETWORK;
                (vec![prefix(from)], places, self.limits.login.window)
            }
            Action::ParkTicket { from } => (vec![prefix(from)], 30, Span::minutes(15)),
            Action::ApiKey { from } => {
                (vec![prefix(from)], self.limits.api_key.attempts as usize, self.limits.api_key.window)
            }
        };
        let parts: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
        (format!("{}.{}", action.name(), base64url(&hmac_sha256(&self.key, &parts)[..16])), places, window)
    }
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
