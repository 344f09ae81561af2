//! Who is at the other end: the socket's peer, or what a trusted proxy says, read from the right.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts, Request};
use http::header::{AUTHORIZATION, Entry as HeaderEntry};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

const FORWARDED_AUTHORIZATION: HeaderName = HeaderName::from_static("x-forwarded-authorization");

/// The client's address; `None` where there is none (unix sockets).
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub Option<IpAddr>);

impl<S: Send + Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or(Self(None)))
    }
}

/// Whether the request was handed to us by a trusted proxy; over a unix socket it always was.
pub fn is_from_proxy(request: &Request, trusted: &[IpNet]) -> bool {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical());
    peer.is_none_or(|peer| trusted.iter().any(|net| net.contains(&peer)))
}

/// The first address from the right that is no trusted proxy. Whatever stands left of it, the client could have
/// written itself. A unix socket is reached only by a proxy of this machine, so its header is believed too.
pub fn client_address(request: &Request, trusted: &[IpNet]) -> Option<IpAddr> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip().to_canonical());
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    if peer.is_some_and(|peer| !is_trusted(&peer)) {
        return peer;
    }
    let mut nearest = peer;
    for hop in hops(request.headers()).into_iter().rev() {
        // A hop that cannot be read ends the walk: what the proxy before it said is all we know.
        let Some(hop) = hop else { break };
        nearest = Some(hop);
        if !is_trusted(&hop) {
            break;
        }
    }
    nearest
}

/// What a trusted API gateway forwards in a header of its own, because it put its own credential into `Authorization`,
/// takes that one's place; two of it are as wrong there as here.
pub fn take_forwarded_authorization(headers: &mut HeaderMap) {
    let HeaderEntry::Occupied(forwarded) = headers.entry(FORWARDED_AUTHORIZATION) else { return };
    let (_, values) = forwarded.remove_entry_mult();
    let values: Vec<HeaderValue> = values.collect();
    headers.remove(AUTHORIZATION);
    for value in values {
        headers.append(AUTHORIZATION, value);
    }
}

/// Addresses of `X-Forwarded-For` or `Forwarded` (RFC 7239), left to right over all their lines. A proxy that sets
/// the one passes a client's own lines of the other through, so where both are there and differ, neither is believed.
fn hops(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let listed = |name: &str, parse: fn(&str) -> Option<IpAddr>| -> Option<Vec<Option<IpAddr>>> {
        let mut lines = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or("?")).peekable();
        lines.peek()?;
        Some(lines.flat_map(|line| line.split(',')).map(parse).collect())
    };
    match (listed("x-forwarded-for", parse_address), listed("forwarded", forwarded_for)) {
        (Some(one), Some(other)) if one != other => Vec::new(),
        (one, other) => one.or(other).unwrap_or_default(),
    }
}

fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    parse_address(value.trim().trim_matches('"'))
}

/// An address with or without a port, IPv6 in brackets or bare.
fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Some(socket.ip().to_canonical());
    }
    let bare = text.strip_prefix('[')?.strip_suffix(']')?;
    bare.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, headers: &[(&str, &str)]) -> Option<String> {
        let mut request = http::Request::new(axum::body::Body::empty());
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 1)));
        for (name, value) in headers {
            request.headers_mut().append(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        client_address(&request, &trusted).map(|address| address.to_string())
    }

    #[test]
    fn only_trusted_proxies_are_believed_and_only_as_far_as_they_go() {
        let xff = "x-forwarded-for";
        for (peer, headers, expected) in [
            ("203.0.113.9", &[(xff, "1.2.3.4")][..], "203.0.113.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &[(xff, "1.2.3.4")], "1.2.3.4"),
            ("10.0.0.1", &[(xff, "6.6.6.6, 1.2.3.4")], "1.2.3.4"),
            ("10.0.0.1", &[(xff, "6.6.6.6, 1.2.3.4, 10.0.0.2")], "1.2.3.4"),
            ("10.0.0.1", &[(xff, "6.6.6.6"), (xff, "1.2.3.4")], "1.2.3.4"),
            ("10.0.0.1", &[(xff, "1.2.3.4, nonsense")], "10.0.0.1"),
            ("10.0.0.1", &[(xff, "1.2.3.4, nonsense, 10.0.0.2")], "10.0.0.2"),
            ("10.0.0.1", &[("forwarded", "for=6.6.6.6, for=\"[2001:db8::1]:44\";proto=https")], "2001:db8::1"),
            ("10.0.0.1", &[("forwarded", "for=6.6.6.6"), (xff, "1.2.3.4")], "10.0.0.1"),
            ("10.0.0.1", &[("forwarded", "for=1.2.3.4"), (xff, "1.2.3.4")], "1.2.3.4"),
            ("::ffff:10.0.0.1", &[(xff, "::ffff:1.2.3.4")], "1.2.3.4"),
            ("fd00::1", &[(xff, "1.2.3.4:5678")], "1.2.3.4"),
        ] {
            assert_eq!(seen(peer, headers).as_deref(), Some(expected), "{peer} {headers:?}");
        }
    }
}
