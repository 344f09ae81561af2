//! Authentication as an endpoint asks for it. A public one asks for nothing; one for which it is optional answers guests
//! as well, and takes a bad credential for none; one that requires it turns both away.

use axum::extract::FromRequestParts;
use axum::response::IntoResponse;
use http::request::Parts;

use crate::http::Shared;
use crate::http::error::Fault;

/// Whoever a part of the interface knows by their credential.
pub trait Authenticated: Sized {
    /// How that part says no, and that something of ours went wrong.
    type Rejection: IntoResponse + From<Fault>;

    /// # Errors
    /// `Ok(Err(…))` for a credential that is absent or bad; a fault says nothing about it.
    fn authenticate(
        web: &Shared,
        parts: &Parts,
    ) -> impl Future<Output = Result<Result<Self, Self::Rejection>, Fault>> + Send;
}

/// Somebody, or the request is refused.
pub struct Required<A>(pub A);

/// Somebody, or a guest. What cannot be found out is a fault and never a guest.
pub struct Optional<A>(pub Option<A>);

impl<A: Authenticated> FromRequestParts<Shared> for Required<A> {
    type Rejection = A::Rejection;

    async fn from_request_parts(parts: &mut Parts, web: &Shared) -> Result<Self, A::Rejection> {
        A::authenticate(web, parts).await?.map(Self)
    }
}

impl<A: Authenticated> FromRequestParts<Shared> for Optional<A> {
    type Rejection = A::Rejection;

    async fn from_request_parts(parts: &mut Parts, web: &Shared) -> Result<Self, A::Rejection> {
        Ok(Self(A::authenticate(web, parts).await?.ok()))
    }
}
