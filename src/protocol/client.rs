//! What a client is: the metadata of RFC 7591 §2 and OpenID Connect Registration §2 with our own members, as
//! one value. Declared clients, the command line, dynamic registration and the store all speak this type;
//! `registration.rs` decides whether a value of it is acceptable.

use serde::{Deserialize, Serialize};

use super::ids::ClientId;
use super::scope::{OFFLINE_ACCESS, ScopeSet};
use super::time::{Span, Timestamp};

/// Declares an enum whose variants have one wire name each, with `as_str`, `FromStr`, `Display` and serde.
macro_rules! wire_enum {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$vmeta:meta])* $variant:ident = $wire:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        $vis enum $name { $($(#[$vmeta])* #[serde(rename = $wire)] $variant,)+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $wire,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = ();
            fn from_str(text: &str) -> std::result::Result<Self, ()> {
                match text { $($wire => Ok(Self::$variant),)+ _ => Err(()) }
            }
        }
    };
}
pub(crate) use wire_enum;

wire_enum! {
    /// `grant_type` (RFC 6749 §4) as it stands at `/token` and in a client's `grant_types`.
    pub enum GrantType {
        AuthorizationCode = "authorization_code",
        RefreshToken = "refresh_token",
        ClientCredentials = "client_credentials",
        /// Our own (RFC 6749 §4.5): a person's API key for tokens.
        ApiKey = "urn:keyward:oauth:grant-type:api-key",
        /// RFC 8693, of API keys.
        TokenExchange = "urn:ietf:params:oauth:grant-type:token-exchange",
    }
}

wire_enum! {
    /// `token_endpoint_auth_method` (RFC 7591 §2, OpenID Connect Core §9).
    pub enum AuthMethod {
        ClientSecretBasic = "client_secret_basic",
        ClientSecretPost = "client_secret_post",
        None = "none",
    }
}

wire_enum! {
    /// Signature algorithms of the tokens we issue (RFC 7518 §3.1, RFC 8037 §3.1).
    pub enum SigningAlg {
        Rs256 = "RS256",
        Es256 = "ES256",
        Ps256 = "PS256",
        /// With Ed25519.
        EdDsa = "EdDSA",
    }
}

wire_enum! {
    /// When a refresh token is replaced by its use (RFC 9700 §4.14). `auto`: for public clients whose tokens
    /// are not bound to a key.
    pub enum RefreshTokenRotation {
        Auto = "auto",
        Always = "always",
        Never = "never",
    }
}

wire_enum! {
    /// Where a client finds the claims of its scopes.
    pub enum IdTokenClaims {
        /// At the UserInfo endpoint only, as OpenID Connect Core §5.4 says.
        Userinfo = "userinfo",
        /// In the ID token as well, for relying parties that never call UserInfo.
        Scopes = "scopes",
    }
}

wire_enum! {
    /// Whose tokens a client may introspect.
    pub enum IntrospectionRight {
        Own = "own",
        Any = "any",
    }
}

/// Metadata of one client in the names of RFC 7591. Absent members keep the defaults that the specification
/// gives; lifetimes that are absent fall back to `[tokens]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientMetadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_name: Option<String>,
    pub redirect_uris: Vec<String>,
    pub post_logout_redirect_uris: Vec<String>,
    pub grant_types: Vec<GrantType>,
    /// `code` is the only response type so far.
    pub response_types: Vec<String>,
    /// Absent: `client_secret_basic` and `client_secret_post` are both accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_endpoint_auth_method: Option<AuthMethod>,
    pub scope: ScopeSet,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_uri: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logo_uri: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_uri: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tos_uri: Option<String>,
    pub contacts: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_token_signed_response_alg: Option<SigningAlg>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_token_signed_response_alg: Option<SigningAlg>,
    /// Seconds; applied when a request has no `max_age` (OpenID Connect Registration §2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_max_age: Option<u32>,
    /// Skips the consent page unless the request says `prompt=consent`.
    pub first_party: bool,
    pub id_token_claims: IdTokenClaims,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_token_ttl: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_token_ttl: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token_ttl: Option<Span>,
    /// A refresh token that rests longer than this dies; absent: only `refresh_token_ttl` counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_idle_ttl: Option<Span>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token_rotation: Option<RefreshTokenRotation>,
    pub introspection: IntrospectionRight,
    pub allowed_origins: Vec<String>,
    /// This client is a partner: it has people of its own.
    pub partner: bool,
    /// The partner that this client belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partner_client_id: Option<ClientId>,
}

impl Default for ClientMetadata {
    fn default() -> Self {
        Self {
            client_name: None,
            redirect_uris: Vec::new(),
            post_logout_redirect_uris: Vec::new(),
            grant_types: vec![GrantType::AuthorizationCode],
            response_types: vec!["code".to_owned()],
            token_endpoint_auth_method: None,
            scope: ScopeSet::default(),
            client_uri: None,
            logo_uri: None,
            policy_uri: None,
            tos_uri: None,
            contacts: Vec::new(),
            id_token_signed_response_alg: None,
            access_token_signed_response_alg: None,
            default_max_age: None,
            first_party: false,
            id_token_claims: IdTokenClaims::Userinfo,
            access_token_ttl: None,
            id_token_ttl: None,
            refresh_token_ttl: None,
            refresh_idle_ttl: None,
            refresh_token_rotation: None,
            introspection: IntrospectionRight::Own,
            allowed_origins: Vec::new(),
            partner: false,
            partner_client_id: None,
        }
    }
}

impl ClientMetadata {
    /// The grants of a client that only plain calls act as, where nobody named any: RFC 7591 would give it codes.
    pub fn grants_of_calls(scope: &ScopeSet) -> Vec<GrantType> {
        if scope.contains(OFFLINE_ACCESS) { vec![GrantType::RefreshToken] } else { Vec::new() }
    }

    /// A client that holds no secret and so cannot authenticate (RFC 6749 §2.1).
    pub fn is_public(&self) -> bool {
        self.token_endpoint_auth_method == Some(AuthMethod::None)
    }

    /// Origins (RFC 6454) that the client's pages have: `allowed_origins`, and those of its web redirect URIs.
    pub fn origins(&self) -> Vec<String> {
        let redirects = self.redirect_uris.iter().filter_map(|uri| url::Url::parse(uri).ok());
        let web =
            redirects.map(|url| url.origin()).filter(url::Origin::is_tuple).map(|origin| origin.ascii_serialization());
        web.chain(self.allowed_origins.iter().cloned()).collect()
    }

    pub fn allows(&self, grant_type: GrantType) -> bool {
        self.grant_types.contains(&grant_type)
    }
}

/// One registered client as the rules see it. Its secrets stay in the store; `client_auth.rs` gets them as facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub id: ClientId,
    pub metadata: ClientMetadata,
    /// Set once an operator disabled it, or once it left the configuration file that declared it.
    pub disabled_at: Option<Timestamp>,
}

impl Client {
    /// What pages call the client: its `client_name`, or its `client_id` where it has none.
    pub fn display_name(&self) -> &str {
        self.metadata.client_name.as_deref().unwrap_or(self.id.as_str())
    }

    /// The partner that this client is or belongs to.
    pub fn partner(&self) -> Option<&ClientId> {
        if self.metadata.partner { Some(&self.id) } else { self.metadata.partner_client_id.as_ref() }
    }

    pub fn is_enabled(&self) -> bool {
        self.disabled_at.is_none()
    }

    /// Whether a refresh token of this client is replaced when it is used (RFC 9700 §4.14.2).
    pub fn rotates_refresh_tokens(&self, default: RefreshTokenRotation) -> bool {
        match self.metadata.refresh_token_rotation.unwrap_or(default) {
            RefreshTokenRotation::Always => true,
            RefreshTokenRotation::Never => false,
            RefreshTokenRotation::Auto => self.metadata.is_public(),
        }
    }
}
