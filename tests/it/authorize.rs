//! `/authorize` and its way through the pages.

use crate::on_both_databases;
use crate::support::{CALLBACK, Provider, challenge};

on_both_databases! {
    /// The whole way once, as a person goes it.
    async fn a_person_signs_in_allows_and_the_app_gets_a_code(provider: Provider) {
        let mut browser = provider.browser();
        let url = provider.authorize_url_for("web", &format!("scope=openid+email&nonce=n1&{}", challenge()));
        let page = provider.authorize(&mut browser, &url).await;
        let params = page.location_params();
        assert!(page.location().starts_with(CALLBACK));
        assert_eq!(params["state"], "xyz");
        assert_eq!(params["iss"], "https://id.test");
        assert!(params["code"].len() >= 43);
    }
}
