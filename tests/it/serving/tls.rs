//! TLS of our own, and certificates that change under it.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use keyward::config::TlsFiles;
use keyward::http::serve::tls::Tls;
use openssl::hash::MessageDigest;
use openssl::ssl::{SslConnector, SslMethod, SslStream, SslVersion};
use openssl::symm::Cipher;

use super::*;
use crate::support::certificate::Identity;
use crate::support::process::{Running, Site, wait_for};

const NAME: &str = "id.test";
const H2: &[u8] = b"\x02h2";
const HTTP1: &[u8] = b"\x08http/1.1";
const BOTH: &[u8] = b"\x08http/1.1\x02h2";

/// A root that clients trust, and one in between that only the server can show them.
struct Authority {
    root: Identity,
    between: Identity,
}

impl Authority {
    fn new() -> Self {
        let root = Identity::make("Root", None, true, 30);
        let between = Identity::make("Between", Some(&root), true, 30);
        Self { root, between }
    }

    fn issue(&self) -> Identity {
        Identity::make(NAME, Some(&self.between), false, 30)
    }

    fn chain(&self, leaf: &Identity) -> String {
        leaf.pem() + &self.between.pem()
    }

    /// A client that trusts the root, offers these protocols and speaks these versions.
    fn connect(
        &self,
        address: (&str, u16),
        protocols: &[u8],
        versions: Option<SslVersion>,
    ) -> Result<SslStream<std::net::TcpStream>, String> {
        let mut builder = SslConnector::builder(SslMethod::tls_client()).expect("a client");
        builder.cert_store_mut().add_cert(self.root.cert.clone()).expect("added");
        if !protocols.is_empty() {
            builder.set_alpn_protos(protocols).expect("set");
        }
        // Old versions need this to be tried at all.
        builder.set_security_level(0);
        builder.set_max_proto_version(versions).expect("set");
        builder.set_min_proto_version(versions.or(Some(SslVersion::TLS1_2))).expect("set");
        let stream = std::net::TcpStream::connect(address).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        builder.build().connect(NAME, stream).map_err(|error| error.to_string())
    }
}

/// Sends a GET and reads the answer's status.
fn get_status(stream: &mut SslStream<std::net::TcpStream>, path: &str) -> u16 {
    stream.write_all(GET.replace("/ok", path).as_bytes()).expect("written");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("an answer");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("a head").to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    stream.read_exact(&mut vec![0; length.parse().expect("a length")]).expect("a body");
    head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
}

fn shown(stream: &SslStream<std::net::TcpStream>) -> Vec<u8> {
    let cert = stream.ssl().peer_certificate().expect("a certificate");
    cert.digest(MessageDigest::sha256()).expect("a digest").to_vec()
}

fn site(authority: &Authority, leaf: &Identity) -> Site {
    let site = Site::empty();
    let head = site.head().replace(&site.issuer, &format!("https://{NAME}"));
    site.configure(&format!("{head}[tls]\ncert_file = \"tls.pem\"\nkey_file = \"tls.key\"\n"));
    write(&site, "tls.pem", &authority.chain(leaf));
    write(&site, "tls.key", &leaf.key_pem());
    site
}

fn write(site: &Site, name: &str, text: &str) {
    std::fs::write(site.path(name), text).expect("written");
    std::fs::set_permissions(site.path(name), std::fs::Permissions::from_mode(0o600)).expect("set");
}

async fn serve(site: &Site) -> Running {
    let mut running = Running::start(site.command(&["serve"]), "");
    wait_for("the listener", async || {
        assert!(running.ended().is_none(), "{}", running.stderr());
        running.stderr().contains("listening").then_some(())
    })
    .await;
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn both_protocols_are_spoken_by_their_names_and_old_versions_are_not() {
    let authority = Authority::new();
    let leaf = authority.issue();
    let site = site(&authority, &leaf);
    let running = serve(&site).await;
    let address = ("127.0.0.1", site.port);
    for (protocols, versions, expected) in [
        (BOTH, None, Ok(Some("h2"))),
        (H2, None, Ok(Some("h2"))),
        (HTTP1, None, Ok(Some("http/1.1"))),
        (b"", None, Ok(None)),
        (BOTH, Some(SslVersion::TLS1_2), Ok(Some("h2"))),
        (BOTH, Some(SslVersion::TLS1_3), Ok(Some("h2"))),
        (BOTH, Some(SslVersion::TLS1_1), Err(())),
        (BOTH, Some(SslVersion::TLS1), Err(())),
        (b"\x0aacme-tls/1", None, Err(())),
    ] {
        let name = String::from_utf8_lossy(protocols).into_owned();
        match (authority.connect(address, protocols, versions), expected) {
            (Ok(mut stream), Ok(expected)) => {
                assert_eq!(stream.ssl().selected_alpn_protocol(), expected.map(str::as_bytes), "{name}");
                if expected != Some("h2") {
                    assert_eq!(get_status(&mut stream, "/jwks"), 200, "{name}");
                }
            }
            (Err(_), Err(())) => {}
            (got, _) => panic!("{name}, {versions:?}: {:?}", got.map(|_| "connected")),
        }
    }
    // Plain HTTP is no TLS, and harms nobody.
    let mut plain = TcpStream::connect(address).await.expect("a connection");
    plain.write_all(GET.as_bytes()).await.expect("written");
    assert!(!until_closed(&mut plain).await.starts_with(b"HTTP/1.1 200"));

    std::fs::write(site.path("root.pem"), authority.root.pem()).expect("written");
    for (flag, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let resolve = format!("{NAME}:{}:127.0.0.1", site.port);
        let url = format!("https://{NAME}:{}/.well-known/openid-configuration", site.port);
        let mut curl = Command::new("curl");
        curl.args([flag, "-sS", "--cacert", "root.pem", "--resolve", &resolve, "-w", " %{http_version}", &url]);
        curl.current_dir(site.dir.path());
        let ran = Running::start(curl, "").wait().await.ok();
        assert!(ran.stdout.contains(&format!("\"issuer\":\"https://{NAME}\"")), "{ran:?}");
        assert!(ran.stdout.ends_with(&format!(" {version}")), "{ran:?}");
    }
    let ran = running.terminate().await.ok();
    assert!(!ran.stderr.contains("ERROR") && !ran.stderr.contains("panicked"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_shown_to_new_connections_and_a_broken_one_to_nobody() {
    let authority = Authority::new();
    let (first, second, third) = (authority.issue(), authority.issue(), authority.issue());
    let site = site(&authority, &first);
    let running = serve(&site).await;
    let connect = || authority.connect(("127.0.0.1", site.port), HTTP1, None).expect("a handshake");
    let shows = async |identity: &Identity| {
        wait_for("the certificate", async || (shown(&connect()) == identity.digest()).then_some(())).await;
    };
    let mut old = connect();
    assert_eq!((get_status(&mut old, "/jwks"), shown(&old)), (200, first.digest()));

    // The two files do not change at once.
    write(&site, "tls.pem", &authority.chain(&second));
    write(&site, "tls.key", &second.key_pem());
    shows(&second).await;
    assert_eq!((get_status(&mut old, "/jwks"), shown(&old)), (200, first.digest()), "it goes on as it began");
    assert!(!running.stderr().contains("not replaced"), "{}", running.stderr());

    // The key of another certificate, nonsense, nothing at all: told once each, and the old one goes on.
    for (number, broken) in [third.key_pem(), "nonsense".to_owned(), String::new()].iter().enumerate() {
        write(&site, "tls.key", broken);
        let told = || running.stderr().matches("was not replaced").count();
        wait_for("the complaint", async || (told() == number + 1).then_some(())).await;
        assert_eq!(shown(&connect()), second.digest());
        assert!(!running.stderr().contains("PRIVATE KEY"));
    }
    // A signal has it looked at in this moment, and told again.
    running.signal("HUP");
    wait_for("the complaint", async || (running.stderr().matches("was not replaced").count() == 4).then_some(())).await;

    write(&site, "tls.key", &third.key_pem());
    write(&site, "tls.pem", &authority.chain(&third));
    running.signal("HUP");
    shows(&third).await;
    assert_eq!(get_status(&mut old, "/jwks"), 200);
    // The renewal tools turn a link.
    write(&site, "renewed.pem", &authority.chain(&first));
    write(&site, "renewed.key", &first.key_pem());
    for (name, target) in [("tls.pem", "renewed.pem"), ("tls.key", "renewed.key")] {
        std::os::unix::fs::symlink(target, site.path("link")).expect("a link");
        std::fs::rename(site.path("link"), site.path(name)).expect("renamed");
    }
    shows(&first).await;
    let ran = running.terminate().await.ok();
    assert_eq!(ran.stderr.matches("was not replaced").count(), 4, "{}", ran.stderr);
}

/// What would not serve is told at the start, and by `config check` before that.
#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_does_not_hold_together_is_refused_with_the_remedy() {
    let authority = Authority::new();
    let (leaf, other) = (authority.issue(), authority.issue());
    let site = site(&authority, &leaf);
    site.run(&["config", "check"]).await.ok();
    let encrypted = leaf.key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"hunter2").expect("PEM");
    let encrypted = String::from_utf8(encrypted).expect("text");
    let (chain, key) = (authority.chain(&leaf), leaf.key_pem());
    for (chain, key, words) in [
        (chain.clone(), other.key_pem(), ["tls.key_file", "is not the key of the certificate"]),
        (authority.between.pem() + &leaf.pem(), key.clone(), ["tls.key_file", "has to be the server's own"]),
        (chain.clone(), encrypted, ["tls.key_file", "decrypt it"]),
        (chain.clone(), "nonsense".to_owned(), ["tls.key_file", "not a private key in PEM"]),
        (chain, leaf.pem(), ["tls.key_file", "not a private key in PEM"]),
        ("nonsense".to_owned(), key.clone(), ["tls.cert_file", "no certificate"]),
        (String::new(), key.clone(), ["tls.cert_file", "no certificate"]),
        (key.clone(), key, ["tls.cert_file", "no certificate"]),
    ] {
        write(&site, "tls.pem", &chain);
        write(&site, "tls.key", &key);
        for command in [&["config", "check"][..], &["serve"]] {
            let ran = site.run(command).await.refused(&words);
            assert!(!ran.stderr.contains("PRIVATE KEY"), "{ran:?}");
        }
    }
    write(&site, "tls.pem", &authority.chain(&leaf));
    std::fs::remove_file(site.path("tls.key")).expect("removed");
    for command in [&["config", "check"][..], &["serve"]] {
        site.run(command).await.refused(&["tls.key", "No such file"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_all_may_read_and_an_old_certificate_are_remarked_on() {
    let authority = Authority::new();
    let leaf = authority.issue();
    let site = site(&authority, &leaf);
    assert_eq!(site.run(&["config", "check"]).await.ok().stderr, "");
    std::fs::set_permissions(site.path("tls.key"), std::fs::Permissions::from_mode(0o644)).expect("set");
    let ran = site.run(&["config", "check"]).await.ok();
    assert!(ran.stderr.contains("everybody on this machine can read the private key"), "{ran:?}");
    for (days, word) in [(3, "expires soon"), (0, "has expired")] {
        let old = Identity::make(NAME, Some(&authority.between), false, days);
        write(&site, "tls.pem", &authority.chain(&old));
        write(&site, "tls.key", &old.key_pem());
        wait_for("the moment after", async || {
            site.run(&["config", "check"]).await.ok().stderr.contains(word).then_some(())
        })
        .await;
    }
    // It is still what the operator has; serving nothing would not be better.
    serve(&site).await.terminate().await.ok();
}

/// Nothing to read again, and no reason to end.
#[tokio::test]
async fn a_hangup_without_tls_does_nothing() {
    let site = Site::new("");
    let running = site.serve().await;
    running.signal("HUP");
    for _ in 0..20 {
        assert_eq!(site.browser().get("/jwks").await.status, 200);
    }
    running.terminate().await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_stalls_is_ended_and_holds_up_nobody() {
    let authority = Authority::new();
    let leaf = authority.issue();
    let dir = tempfile::tempdir().expect("a directory");
    let files = TlsFiles { cert_file: dir.path().join("c"), key_file: dir.path().join("k") };
    std::fs::write(&files.cert_file, authority.chain(&leaf)).expect("written");
    std::fs::write(&files.key_file, leaf.key_pem()).expect("written");
    let limits = Limits { handshake: SHORT, ..Limits::default() };
    let front = Arc::new(Front::new(limits).with_tls(Tls::open(&files).expect("a pair")));
    let gate = Gate::closed();
    let service = Service::behind(&front, routes(&gate)).await;
    let mut stalled = Vec::new();
    for begun in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00"] {
        for _ in 0..20 {
            let mut stream = service.connect().await;
            stream.write_all(begun).await.expect("written");
            stalled.push(stream);
        }
    }
    let address = ("127.0.0.1", service.address.port());
    let mut client = authority.connect(address, HTTP1, None).expect("a handshake");
    assert_eq!(get_status(&mut client, "/ok"), 200);
    for stream in &mut stalled {
        assert_eq!(until_closed(stream).await, b"");
    }
    // At the end the last answer arrives whole, and so does the word that nothing follows.
    client.write_all(GET.replace("/ok", "/held").as_bytes()).expect("written");
    gate.waiting.notified().await;
    service.stop.send(true).expect("somebody listens");
    gate.open.add_permits(1);
    let mut last = String::new();
    client.read_to_string(&mut last).expect("an orderly end");
    assert!(last.starts_with("HTTP/1.1 200") && last.ends_with("held"), "{last}");
    service.ended.await.expect("no panic").expect("no error");
}
