//! One provider with several doors: processes on one database, or what stands for them in this one. Whatever is asked
//! at one door may go on at any other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use keyward::app::App;
use tokio::sync::Barrier;
use tower::ServiceExt as _;

use super::browser::{Browser, Page};
use super::provider::{CALLBACK, Provider, TokenAnswer, authorize, authorize_url_for, call, spa_fields, spa_url};

const POLL_EVERY: Duration = Duration::from_millis(200);

/// Looks for changes as the jobs of a process do, as long as the app is there: without that, nothing is remembered for
/// longer than a second.
fn keep_polling(app: &Arc<App>) {
    let app = Arc::downgrade(app);
    tokio::spawn(async move {
        while let Some(app) = app.upgrade() {
            // One that fails is what the next request sees as well.
            let _ = app.store.poll_changes().await;
            drop(app);
            tokio::time::sleep(POLL_EVERY).await;
        }
    });
}

#[derive(Clone)]
pub struct Doors {
    routers: Vec<Router>,
    pub issuer: String,
}

impl Doors {
    pub fn new(routers: Vec<Router>, issuer: &str) -> Self {
        Self { routers, issuer: issuer.to_owned() }
    }

    /// Two of them, in this process.
    pub async fn of(provider: &Provider) -> Self {
        let (elsewhere, second) = provider.second().await;
        for app in [&provider.app, &elsewhere] {
            keep_polling(app);
        }
        Self::new(vec![provider.router.clone(), second], &provider.issuer)
    }

    fn router(&self, door: usize) -> Router {
        self.routers[door % self.routers.len()].clone()
    }

    /// A browser at one door.
    pub fn browser(&self, door: usize) -> Browser {
        Browser::new(self.router(door), &self.issuer)
    }

    /// The same browser, with what it has kept, at another door.
    pub fn moved(&self, browser: &Browser, door: usize) -> Browser {
        let mut moved = self.browser(door);
        moved.cookies = browser.cookies.clone();
        moved
    }

    /// A browser whose every request takes another door than the one before, as behind a load balancer.
    pub fn wandering(&self, first: usize) -> Browser {
        let (doors, next) = (self.clone(), Arc::new(AtomicUsize::new(first)));
        let router = Router::new().fallback(move |request: Request| {
            let router = doors.router(next.fetch_add(1, Ordering::SeqCst));
            async move { router.oneshot(request).await }
        });
        Browser::new(router, &self.issuer)
    }

    pub fn authorize_url_for(&self, client_id: &str, more: &str) -> String {
        authorize_url_for(&self.issuer, client_id, more)
    }

    /// A request of a client, which authenticates.
    pub async fn call(&self, door: usize, client_id: &str, path: &str, fields: &[(&str, &str)]) -> TokenAnswer {
        call(&mut self.browser(door), client_id, path, fields).await
    }

    /// A code for alice, who signs in where it is asked for.
    pub async fn code(&self, browser: &mut Browser, url: &str) -> String {
        let page = authorize(browser, url).await;
        page.location_params().remove("code").unwrap_or_else(|| panic!("no code in {}", page.location()))
    }

    /// A code of `spa`, or of a client with a secret.
    pub async fn code_for(&self, browser: &mut Browser, client_id: &str, scope: &str) -> String {
        let url = match client_id {
            "spa" => spa_url(&self.issuer, scope),
            _ => self.authorize_url_for(client_id, &format!("scope={scope}")),
        };
        self.code(browser, &url).await
    }

    pub async fn redeem(&self, door: usize, client_id: &str, code: &str) -> TokenAnswer {
        let fields = [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", CALLBACK)];
        match client_id {
            "spa" => self.call(door, client_id, "/token", &spa_fields(code)).await,
            _ => self.call(door, client_id, "/token", &fields).await,
        }
    }

    pub async fn refresh(&self, door: usize, client_id: &str, token: &str) -> TokenAnswer {
        self.call(door, client_id, "/token", &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    pub async fn userinfo(&self, door: usize, token: &str) -> Page {
        let bearer = format!("Bearer {token}");
        self.browser(door).send(http::Method::GET, "/userinfo", None, &[("authorization", &bearer)]).await
    }

    /// Whether this browser is signed in, asked as an app would.
    pub async fn is_signed_in(&self, browser: &mut Browser) -> bool {
        let page = browser.get(&self.authorize_url_for("first", "prompt=none")).await;
        let error = page.location_params().remove("error");
        assert!(error.as_deref().is_none_or(|error| error == "login_required"), "{error:?}");
        error.is_none()
    }
}

/// Runs as many futures as there are numbers, all of them from the same moment on.
pub async fn at_once<F>(many: usize, make: impl Fn(usize) -> F) -> Vec<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let start = Arc::new(Barrier::new(many));
    let tasks: Vec<_> = (0..many)
        .map(|n| {
            let (start, future) = (Arc::clone(&start), make(n));
            tokio::spawn(async move {
                start.wait().await;
                future.await
            })
        })
        .collect();
    let mut outputs = Vec::new();
    for task in tasks {
        outputs.push(task.await.expect("no panic"));
    }
    outputs
}
