//! The rules of OAuth 2.0 and OpenID Connect as plain functions over plain data: no IO, no clock, no randomness.
//! What may happen is decided here; the shells in `http`, `account` and `issue` load facts and act on decisions.

pub mod api_key;
pub mod authorize;
pub mod claims;
pub mod client;
pub mod client_auth;
pub mod error;
pub mod first_party;
pub mod gateway;
pub mod grant;
pub mod ids;
pub mod interaction;
pub mod introspection;
pub mod logout;
pub mod members;
pub mod metadata;
pub mod params;
pub mod partner;
pub mod pkce;
pub mod redirect_uri;
pub mod registration;
pub mod revocation;
pub mod scope;
pub mod time;
pub mod user;
