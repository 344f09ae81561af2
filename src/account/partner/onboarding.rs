//! Another try for those who got stuck on their way in.

use super::Partner;
use super::register::{RegisterError, Request, register, welcome_mail};
use crate::app::App;
use crate::protocol::ids::OnboardingId;
use crate::protocol::partner::OnboardingState;
use crate::store::StoreError;
use crate::store::onboardings::Onboarding;
use crate::telemetry::metrics;

#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    #[error("there is no such onboarding")]
    NotThere,
    #[error("it did not fail")]
    NotFailed,
    #[error(transparent)]
    Register(#[from] RegisterError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Tries again what failed: the mail of somebody who is there, or to make them. They get no key by it, for nobody is
/// there to take it: that is asked for by itself.
pub async fn retry(app: &App, partner: &Partner, id: &OnboardingId) -> Result<Onboarding, RetryError> {
    let failed = app.store.onboarding(&partner.id, id).await?.ok_or(RetryError::NotThere)?;
    if failed.state != OnboardingState::Failed {
        return Err(RetryError::NotFailed);
    }
    match (&failed.user_id, failed.wish) {
        (Some(user_id), _) => {
            let person = app.store.partner_user(&partner.id, user_id).await?.ok_or(RetryError::NotThere)?;
            let mail = welcome_mail(app, partner, id, person.user.email.as_deref().unwrap_or_default());
            if !app.store.rewrite_welcome_mail(id.clone(), mail, app.now()).await? {
                return Err(RetryError::NotFailed);
            }
        }
        (None, Some(registration)) => {
            let onboarding = Some(id.clone());
            let request = Request { registration, key: None, idempotent: None, line: None, onboarding };
            register(app, partner, request).await?;
        }
        (None, None) => return Err(RetryError::NotFailed),
    }
    metrics::onboarding(partner.id.as_str(), "retried");
    // By whose it is: somebody who was made by another request meanwhile has a way in of their own.
    app.store.onboarding_of(&partner.id, &failed.external_id).await?.ok_or(RetryError::NotThere)
}
