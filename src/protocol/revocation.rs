//! Token revocation (RFC 7009): whose token it must be. What a token is, the shell finds out.

use super::client::Client;
use super::error::Error;

/// A token can be revoked by the client it was issued to and by nobody else.
///
/// # Errors
/// `unauthorized_client`: RFC 7009 §2.1 has the request refused and the client told.
pub fn check_owner(client: &Client, issued_to: &str) -> Result<(), Error> {
    if client.id.as_str() == issued_to {
        return Ok(());
    }
    Err(Error::unauthorized_client("the token was issued to another client"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::client::ClientMetadata;
    use crate::protocol::ids::ClientId;

    #[test]
    fn only_the_owner_revokes() {
        let client = Client { id: ClientId::new("app"), metadata: ClientMetadata::default(), disabled_at: None };
        assert!(check_owner(&client, "app").is_ok());
        assert!(check_owner(&client, "other").is_err());
    }
}
