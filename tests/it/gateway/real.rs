//! Real gateways before a real app, with the configuration that their pages below `docs/gateway/` show.

use std::process::Command;

use keyward::account::api_keys::revoke;
use keyward::protocol::api_key::Wish;

use super::house::{HOST, House, Manual, identity};
use super::{GATEWAY_COOKIE, at_the_app, tokens_of};
use crate::on_both_databases;
use crate::support::audit::an_operator;
use crate::support::process::{Running, wait_for};
use crate::support::python::python;
use crate::support::{Backend, Browser};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nginx,
    Caddy,
    Traefik,
    Envoy,
}

const ALL: [Kind; 4] = [Kind::Nginx, Kind::Caddy, Kind::Traefik, Kind::Envoy];

impl Kind {
    /// Its page sends who came for a page to sign in, and keeps our cookie from the app.
    fn rewrites(self) -> bool {
        matches!(self, Self::Nginx | Self::Caddy)
    }

    /// Its page has a route where a bad credential is no matter.
    fn has_public(self) -> bool {
        self != Self::Envoy
    }

    /// What `FORGED` has that its page says it cannot take away.
    fn lets_through(self, header: &str) -> bool {
        self == Self::Traefik && header.starts_with("X-Auth_")
    }

    fn forged(self) -> Vec<&'static str> {
        FORGED.into_iter().filter(|header| !self.lets_through(header)).collect()
    }
}

/// A house with a gateway at its door.
struct Gateway {
    house: House,
    running: Running,
}

impl Gateway {
    async fn start(kind: Kind, backend: Backend) -> Self {
        let house = House::build(backend).await;
        let command = match kind {
            Kind::Nginx => nginx(&house),
            Kind::Caddy => caddy(&house),
            Kind::Traefik => traefik(&house),
            Kind::Envoy => envoy(&house),
        };
        let mut running = Running::start(command, "");
        wait_for("the gateway", async || {
            if let Some(ran) = running.ended() {
                panic!("it ended: {ran:?}");
            }
            house.is_open().await.then_some(())
        })
        .await;
        Self { house, running }
    }

    async fn stop(self) {
        let ran = self.running.terminate().await;
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(!ran.stderr.contains("[emerg]") && !ran.stderr.contains("[warn]"), "{}", ran.stderr);
    }
}

fn nginx(house: &House) -> Command {
    let mut page = Manual::read("nginx.md", "nginx");
    let (cert, key) = house.certificate();
    page.put("server 127.0.0.1:8080;", &format!("server {};", house.provider_address));
    page.put("server 127.0.0.1:3000;", &format!("server {};", house.app_address));
    page.put("listen 443 ssl;", &format!("listen 127.0.0.1:{} ssl;", house.gateway));
    page.put("/etc/letsencrypt/live/app.example.com/fullchain.pem", &cert);
    page.put("/etc/letsencrypt/live/app.example.com/privkey.pem", &key);
    page.put("app.example.com", HOST);
    page.put("https://quiz.example.com", "https://quiz.test");
    std::fs::write(house.path("app.conf"), page.text).expect("written");
    std::fs::write(house.path("nginx.conf"), AROUND).expect("written");
    let mut command = Command::new("nginx");
    command.arg("-p").arg(house.dir.path()).args(["-c", "nginx.conf", "-e", "stderr"]);
    command
}

fn caddy(house: &House) -> Command {
    let mut page = Manual::read("caddy.md", "caddyfile");
    let (cert, key) = house.certificate();
    page.put("127.0.0.1:8080", &house.provider_address.to_string());
    page.put("127.0.0.1:3000", &house.app_address.to_string());
    let site = format!("https://{HOST}:{} {{\n\tbind 127.0.0.1\n\ttls {cert} {key}\n", house.gateway);
    page.put("app.example.com {\n", &site);
    page.put("https://quiz.example.com", "https://quiz.test");
    let global = "{\n\tadmin off\n\tauto_https off\n}\n";
    std::fs::write(house.path("Caddyfile"), format!("{global}{}", page.text)).expect("written");
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(house.path("Caddyfile"));
    for name in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
        command.env(name, house.dir.path());
    }
    command
}

fn traefik(house: &House) -> Command {
    let mut page = Manual::read("traefik.md", "yaml");
    let (cert, key) = house.certificate();
    page.put("http://127.0.0.1:8080", &format!("http://{}", house.provider_address));
    page.put("http://127.0.0.1:3000", &format!("http://{}", house.app_address));
    page.put("app.example.com", HOST);
    page.put("https://quiz.example.com", "https://quiz.test");
    let certificates = format!("tls:\n  certificates:\n    - {{ certFile: {cert}, keyFile: {key} }}\n");
    std::fs::write(house.path("app.yaml"), format!("{}{certificates}", page.text)).expect("written");
    let mut command = Command::new(python().with_file_name("traefik"));
    command.arg(format!("--entryPoints.door.address=127.0.0.1:{}", house.gateway));
    command.arg(format!("--providers.file.filename={}", house.path("app.yaml").display()));
    command.args(["--global.checkNewVersion=false", "--global.sendAnonymousUsage=false", "--log.level=WARN"]);
    command
}

fn envoy(house: &House) -> Command {
    let mut page = Manual::read("envoy.md", "yaml");
    let (cert, key) = house.certificate();
    let port = |address: std::net::SocketAddr| format!("port_value: {} }}", address.port());
    page.put("port_value: 8080 }", &port(house.provider_address));
    page.put("port_value: 3000 }", &port(house.app_address));
    page.put("address: 0.0.0.0, port_value: 443", &format!("address: 127.0.0.1, port_value: {}", house.gateway));
    page.put("/etc/letsencrypt/live/app.example.com/fullchain.pem", &cert);
    page.put("/etc/letsencrypt/live/app.example.com/privkey.pem", &key);
    page.put("app.example.com", &format!("{HOST}:{}", house.gateway));
    page.put("https://quiz.example.com", "https://quiz.test");
    std::fs::write(house.path("envoy.yaml"), page.text).expect("written");
    let mut command = Command::new(python().with_file_name("envoy"));
    command.arg("-c").arg(house.path("envoy.yaml"));
    command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "error"]);
    command
}

/// What stands around a file of `/etc/nginx/conf.d/`. All temporary files are below the test's own directory.
const AROUND: &str = "
daemon off;
master_process off;
pid nginx.pid;
error_log stderr info;
events { worker_connections 256; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include app.conf;
}
";

/// Every name that an answer can fill, forged in every way that a visitor can think of.
const FORGED: [&str; 16] = [
    "X-Auth-Status: user",
    "X-Auth-Subject: root",
    "x-AUTH-subject: root",
    "X-Auth-Subject: root2",
    "X_Auth_Subject: root",
    "X-Auth_Subject: root",
    "X-Auth-Username: root",
    "X-Auth-Email: root@example.com",
    "X-Auth-Email-Verified: true",
    "X-Auth-Scopes: root",
    "X-Auth-Client: root",
    "X-Auth-Partner: root",
    "X-Auth-External-Id: root",
    "X-Auth-Key-Id: root",
    "X-Auth-Method: root",
    "X-Auth-Error: root",
];

fn cookie_of(browser: &Browser) -> String {
    format!("Cookie: theme=dark; {GATEWAY_COOKIE}={}; lang=nb", at_the_app(browser).cookies[GATEWAY_COOKIE])
}

on_both_databases! {
    async fn guests_come_as_far_as_they_are_welcome(provider: Provider) {
        for kind in ALL {
        let gateway = Gateway::start(kind, provider.backend()).await;
        let house = &gateway.house;
        for line in ["GET /public/", "GET /", "POST /form"] {
            let page = house.visit(line, &[]).await;
            assert_eq!(page.identity(), identity(&[("status", "guest")]), "{line}");
        }
        let page = house.visit_with("GET /", "nonsense", &[]).await;
        assert_eq!(page.identity(), identity(&[("status", "guest"), ("error", "invalid_token")]));
        if kind.has_public() {
            let page = house.visit_with("GET /public/", "nonsense", &[]).await;
            assert_eq!(page.identity(), identity(&[("status", "guest")]));
        }
        for path in ["/members/", "/members/a?b=c", "/quiz/"] {
            let page = house.visit(&format!("GET {path}"), &["Accept: application/json"]).await;
            assert_eq!(page.status, 401, "{path}");
            assert_eq!(page.header("www-authenticate"), Some("Bearer realm=\"keyward\""));
            let page = house.visit_with(&format!("GET {path}"), "nonsense", &[]).await;
            assert_eq!(page.status, 401, "{path}");
            assert!(page.header("www-authenticate").is_some_and(|text| text.contains("invalid_token")), "{page:?}");
            let page = house.visit(&format!("GET {path}"), &["Accept: text/html,*/*;q=0.8"]).await;
            let expected = if kind.rewrites() { (302, Some("https://id.example.com/login")) } else { (401, None) };
            assert_eq!((page.status, page.header("location")), expected);
        }
        for path in ["/_keyward/required", "/_keyward/public", "/_keyward/"] {
            let page = house.visit(&format!("GET {path}"), &[]).await;
            assert_eq!(page.status, if kind == Kind::Nginx { 404 } else { 200 }, "{path} is not for visitors");
        }
        // What a route asks for is not in the visitor's query.
        for query in ["scope=quiz.read", "audience=https://id.test", "a=b&scope=", "?"] {
            let page = house.visit(&format!("GET /?{query}"), &[]).await;
            assert_eq!(page.identity(), identity(&[("status", "guest")]), "{query}");
        }
        gateway.stop().await;
        }
    }

    async fn members_are_known_by_key_token_and_cookie(provider: Provider) {
        for kind in ALL {
        let gateway = Gateway::start(kind, provider.backend()).await;
        let house = &gateway.house;
        let provider = &house.provider;
        let sub = provider.user_id("alice").await;
        let key = provider.api_key("alice", "openid email quiz.read").await;
        let token = tokens_of(provider, key.expose()).await.text("access_token");
        let mut browser = provider.browser();
        provider.sign_in(&mut browser).await;
        let expected = |pairs: &[(&str, &str)]| {
            let own = [("status", "user"), ("subject", sub.as_str()), ("email", "alice@example.com"), ("email-verified", "true")];
            identity(&[&own[..], pairs].concat())
        };
        for path in ["/members/", "/"] {
            let line = format!("GET {path}");
            let page = house.visit_with(&line, key.expose(), &[]).await;
            let pairs = [("method", "api_key"), ("scopes", "openid email quiz.read"), ("key-id", key.kid.as_str())];
            assert_eq!(page.identity(), expected(&pairs), "{path}");
            assert!(page.handed("authorization").is_empty(), "the key stays here");
            let page = house.visit_with(&line, &token, &[]).await;
            let pairs = [
                ("method", "token"), ("scopes", "openid email quiz.read"), ("key-id", key.kid.as_str()), ("client", "platform"),
            ];
            assert_eq!(page.identity(), expected(&pairs), "{path}");
            let page = house.visit(&line, &[&cookie_of(&browser)]).await;
            let scopes = "openid profile email address phone offline_access roles groups quiz.read pay";
            let pairs = [("method", "cookie"), ("scopes", scopes), ("username", "alice")];
            assert_eq!(page.identity(), expected(&pairs), "{path}");
            if !kind.rewrites() {
                assert_eq!(page.handed("cookie"), [cookie_of(&browser).trim_start_matches("Cookie: ")]);
                continue;
            }
            assert_eq!(page.handed("cookie"), ["theme=dark; lang=nb"], "and so does our cookie");
            // Nor does an app get it that plants one of its own beside it.
            let own = at_the_app(&browser).cookies[GATEWAY_COOKIE].clone();
            for planted in ["x", "t=", ""].map(|head| format!("{head}{GATEWAY_COOKIE}=1; {GATEWAY_COOKIE}={own}")) {
                let page = house.visit(&line, &[&format!("Cookie: {planted}")]).await;
                let handed = page.handed("cookie");
                assert!(handed.iter().all(|cookie| !cookie.contains(&own)), "{planted}: {handed:?}");
            }
        }
        // The scope, and the resource that a token has to be for.
        assert_eq!(house.visit_with("GET /quiz/", key.expose(), &[]).await.status, 200);
        assert_eq!(house.visit("GET /quiz/", &[&cookie_of(&browser)]).await.status, 200);
        let page = house.visit_with("GET /quiz/", &token, &[]).await;
        assert_eq!((page.status, page.header("x-auth-error")), (403, Some("invalid_audience")));
        let narrow = provider.api_key("alice", "openid").await;
        let page = house.visit_with("GET /quiz/?scope=openid", narrow.expose(), &[]).await;
        assert_eq!((page.status, page.header("x-auth-error")), (403, Some("insufficient_scope")));
        // Out is out.
        crate::support::json(&mut browser.clone(), "DELETE", "/v1/auth/session", serde_json::Value::Null, &[]).await;
        assert_eq!(house.visit("GET /members/", &[&cookie_of(&browser)]).await.status, 401);
        gateway.stop().await;
        }
    }

    async fn nobody_writes_their_own_name(provider: Provider) {
        for kind in ALL {
        let gateway = Gateway::start(kind, provider.backend()).await;
        let house = &gateway.house;
        let provider = &house.provider;
        let sub = provider.user_id("alice").await;
        let key = provider.api_key("alice", "openid").await;
        let forged = kind.forged();
        for path in ["/public/", "/"] {
            let page = house.visit(&format!("GET {path}"), &[&forged[..], &["X-Theme: dark"]].concat()).await;
            assert_eq!(page.identity(), identity(&[("status", "guest")]), "{path}");
            assert_eq!(page.handed("x-theme"), ["dark"], "others pass");
        }
        let bearer = format!("Authorization: Bearer {}", key.expose());
        for headers in [[&forged[..], &[bearer.as_str()]].concat(), [&[bearer.as_str()], &forged[..]].concat()] {
            for path in ["/", "/members/"] {
                let page = house.visit(&format!("GET {path}"), &headers).await;
                let expected = [
                    ("status", "user"), ("subject", sub.as_str()), ("scopes", "openid"), ("method", "api_key"),
                    ("key-id", key.kid.as_str()),
                ];
                assert_eq!(page.identity(), identity(&expected), "{path}");
            }
        }
        assert_eq!(house.visit("GET /members/", &forged).await.status, 401);
        gateway.stop().await;
        }
    }

    async fn another_sites_form_is_nobodys(provider: Provider) {
        for kind in ALL {
        let gateway = Gateway::start(kind, provider.backend()).await;
        let house = &gateway.house;
        let mut browser = house.provider.browser();
        house.provider.sign_in(&mut browser).await;
        let cookie = cookie_of(&browser);
        let own = format!("Origin: https://{}:{}", HOST, house.gateway);
        let evil = "Origin: https://evil.test";
        // What a page of another site would like us to believe.
        let lies = [
            "X-Forwarded-Method: GET", "X-Original-Method: GET", "X-Forwarded-Host: evil.test", "X-Forwarded-Proto: https",
        ];
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let line = format!("{method} /members/");
            for headers in [&[cookie.as_str()][..], &[&cookie, evil], &[&cookie, "Origin: null"], &[&[cookie.as_str(), evil], &lies[..]].concat()] {
                let page = house.visit(&line, headers).await;
                assert_eq!((page.status, page.header("x-auth-error")), (403, Some("foreign_origin")), "{line} {headers:?}");
                let page = house.visit(&format!("{method} /"), headers).await;
                assert_eq!(page.identity(), identity(&[("status", "guest"), ("error", "foreign_origin")]), "{line} {headers:?}");
            }
            assert_eq!(house.visit(&line, &[&cookie, &own]).await.status, 200, "{line}");
        }
        assert_eq!(house.visit("GET /members/", &[&cookie, evil]).await.status, 200);
        gateway.stop().await;
        }
    }

    async fn a_throttled_key_and_a_provider_without_a_database_as_gateways_show_them(provider: Provider) {
        for kind in ALL {
        let gateway = Gateway::start(kind, provider.backend()).await;
        let house = &gateway.house;
        let provider = &house.provider;
        let scopes = Some("openid".parse().expect("scopes"));
        let good = provider.api_key_as("alice", Wish { scopes, ..Wish::default() }).await;
        let bad = provider.api_key("alice", "openid").await;
        let record = provider.app.store.listed_api_key(&bad.kid).await.expect("an answer").expect("the key").record;
        assert!(revoke(&provider.app, &record, &an_operator()).await.expect("an answer"));
        for _ in 0..3 {
            assert_eq!(house.visit_with("GET /members/", bad.expose(), &[]).await.status, 401);
        }
        let page = house.visit_with("GET /members/", bad.expose(), &[]).await;
        // nginx would show 403; its page makes more of it.
        let expected = if kind == Kind::Nginx { 429 } else { 403 };
        assert_eq!((page.status, page.header("x-auth-error")), (expected, Some("too_many_attempts")));
        assert!(page.header("retry-after").is_some_and(|text| text.parse::<u32>().is_ok()), "{page:?}");
        let page = house.visit_with("GET /", bad.expose(), &[]).await;
        assert_eq!(page.identity(), identity(&[("status", "guest"), ("error", "too_many_attempts")]));
        assert_eq!(house.visit_with("GET /members/", good.expose(), &[]).await.status, 200);

        provider.app.store.close().await;
        for path in ["/members/", "/"] {
            wait_for("nothing to be believed from memory", async || {
                let page = house.visit_with(&format!("GET {path}"), good.expose(), &[]).await;
                assert!(matches!(page.status, 200 | 503), "{page:?}");
                assert!(page.status == 503 || page.handed("x-auth-status") == ["user"], "never a guest: {page:?}");
                // Envoy says it in words of its own.
                let expected = (kind != Kind::Envoy).then_some("2");
                (page.status == 503).then(|| assert_eq!(page.header("retry-after"), expected))
            })
            .await;
        }
        if kind.has_public() {
            let page = house.visit_with("GET /public/", good.expose(), &[]).await;
            assert_eq!(page.identity(), identity(&[("status", "guest")]));
        }
        gateway.stop().await;
        }
    }
}
