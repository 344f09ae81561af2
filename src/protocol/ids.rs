//! Identifiers as types of their own, so that a session's id cannot be passed for a grant's. Fresh ones are made from bytes
//! that the caller brings: those of [`Rng::id`](crate::ambient::Rng::id).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::crypto::digest::base64url;

/// From 127 bits. The first of the 128 is cleared, so that the text begins with a letter and never looks like a
/// flag where somebody pastes it behind a command.
pub fn random_id(mut bytes: [u8; 16]) -> String {
    bytes[0] &= 0x7f;
    base64url(&bytes)
}

macro_rules! id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            pub fn from_random(bytes: [u8; 16]) -> Self {
                Self(random_id(bytes))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// `client_id` (RFC 6749 §2.2).
    ClientId
}
id! {
    /// `sub` of a user: the subject's key in `subjects`, never reused and never shared with a client.
    UserId
}
impl UserId {
    /// In the form of a UUID (RFC 9562 §5.4), for apps that keep it in a column of that type.
    pub fn uuid(mut bytes: [u8; 16]) -> Self {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
    }
}

id! {
    /// One authorization, from its code to its last refresh: the key of a `grants` row.
    GrantId
}
id! {
    /// `sid` (OpenID Connect Front-Channel Logout §3): names a session to relying parties, opens nothing.
    SessionId
}
id! {
    /// The public part of an API key, which names it wherever the key itself must not stand.
    ApiKeyId
}
id! {
    /// One person's way in, from the partner's request to the first use.
    OnboardingId
}
id! {
    /// Many registrations at once.
    ImportId
}
