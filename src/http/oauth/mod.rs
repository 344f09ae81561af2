//! The endpoints of OAuth 2.0 and OpenID Connect, one file each.

pub mod authorize;
pub mod discovery;
pub mod introspect;
pub mod revoke;
pub mod ticket;
pub mod token;
pub mod userinfo;
