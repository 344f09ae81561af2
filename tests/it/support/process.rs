//! The built program as processes of its own, in a directory of its own, driven as an operator does: by its
//! command line, its signals and HTTP.

#![allow(clippy::disallowed_methods)] // Deadlines are real time.

use std::io::{Read, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tempfile::TempDir;

use super::browser::{Browser, Page};
use super::provider::{CALLBACK, PASSWORDS, TokenAnswer};

/// Longer than anything takes on a busy machine; who waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A port that nobody listens on. They lie below those that the kernel gives away by itself, so that none is taken
/// between the look and the use.
pub fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let first = || AtomicU16::new(18_000 + u16::try_from(std::process::id() % 11_000).unwrap_or(0));
    let next = NEXT.get_or_init(first);
    loop {
        let port = next.fetch_add(1, Ordering::SeqCst);
        assert!(port < 32_000, "no free port");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Asks again and again until there is an answer.
pub async fn wait_for<T>(what: &str, mut asked: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = asked().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_keyward");

/// A command in `dir`, without settings from the environment of the tests.
fn in_dir(dir: &Path, program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir);
    for (name, _) in std::env::vars_os() {
        if ["KEYWARD_", "OTEL_"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command
}

/// `command` as what another one runs, with its arguments and its environment.
pub fn run_by(mut other: Command, command: &Command) -> Command {
    other.arg(command.get_program()).args(command.get_args());
    if let Some(dir) = command.get_current_dir() {
        other.current_dir(dir);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    other
}

/// A process that does not outlive the test.
pub struct Running {
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

/// What a process that ended has left behind.
#[derive(Clone, Debug)]
pub struct Ran {
    /// `None` after a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// It went well.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// It ended with 1 and told all of this on standard error.
    #[track_caller]
    pub fn refused(self, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(1), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "`{word}` is missing in: {}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }
}

impl Running {
    pub fn start(mut command: Command, stdin: &str) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        // Who does not read its input may be gone before it was written.
        let _ = child.stdin.take().expect("its input").write_all(stdin.as_bytes());
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let readers = vec![
            read(child.stdout.take().expect("its output"), Arc::clone(&stdout)),
            read(child.stderr.take().expect("its errors"), Arc::clone(&stderr)),
        ];
        Self { child, stdout, stderr, readers }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout(&self) -> String {
        self.stdout.lock().expect("the output").clone()
    }

    /// Its log, as far as it has come: what it wrote may still be on its way. Wait for a line, or read what
    /// [`Ran`] has.
    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("the log").clone()
    }

    /// Its end, if it has ended.
    pub fn ended(&mut self) -> Option<Ran> {
        let status = self.child.try_wait().expect("its state")?;
        // The pipes are closed by now; what was in them is read to the end.
        for reader in self.readers.drain(..) {
            reader.join().expect("no panic");
        }
        Some(Ran { code: status.code(), stdout: self.stdout(), stderr: self.stderr() })
    }

    pub async fn wait(mut self) -> Ran {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(ran) = self.ended() {
                return ran;
            }
            assert!(Instant::now() < deadline, "still running: {}{}", self.stdout(), self.stderr());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.id())).status();
        assert!(sent.expect("a shell").success());
    }

    /// Ends it this very moment, as `kill -9` does, and waits until it has.
    pub async fn kill(mut self) -> Ran {
        self.child.kill().expect("killed");
        self.wait().await
    }

    /// Asks it to end and waits until it has.
    pub async fn terminate(self) -> Ran {
        self.signal("TERM");
        self.wait().await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(mut pipe: impl Read + Send + 'static, into: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(n @ 1..) = pipe.read(&mut buffer) {
            into.lock().expect("a buffer").push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    })
}

pub const SITE_SECRET: &str = "web-secret-0123456789-abcdefghij";
pub const SITE_PASSWORD: &str = "a long horse 77";

/// A directory with a configuration: the client `web`, first-party and confidential, and alice.
pub struct Site {
    pub dir: TempDir,
    pub issuer: String,
    pub port: u16,
}

impl Site {
    /// A site whose configuration ends with `more`.
    pub fn new(more: &str) -> Self {
        let site = Self::empty();
        site.configure(&site.default_config(more));
        site
    }

    /// A site without a configuration.
    pub fn empty() -> Self {
        let port = free_port();
        let dir = TempDir::new().expect("a directory");
        std::fs::write(dir.path().join("web.secret"), format!("{SITE_SECRET}\n")).expect("written");
        std::fs::write(dir.path().join("alice.pw"), format!("{SITE_PASSWORD}\n")).expect("written");
        Self { dir, issuer: format!("http://127.0.0.1:{port}"), port }
    }

    pub fn configure(&self, config: &str) {
        std::fs::write(self.dir.path().join("keyward.toml"), config).expect("written");
    }

    /// What stands in the file before any client.
    pub fn head(&self) -> String {
        format!("issuer = \"{}\"\nlisten = \"127.0.0.1:{}\"\n{PASSWORDS}", self.issuer, self.port)
    }

    pub fn default_config(&self, more: &str) -> String {
        format!(
            r#"{}
[[clients]]
client_id = "web"
client_secret_file = "web.secret"
redirect_uris = ["{CALLBACK}"]
grant_types = ["authorization_code", "refresh_token", "client_credentials"]
scope = "openid profile offline_access"
first_party = true
[[users]]
username = "alice"
email = "alice@example.com"
password_file = "alice.pw"
name = "Alice Archer"
{more}"#,
            self.head()
        )
    }

    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = in_dir(self.dir.path(), PROGRAM);
        command.args(args);
        command
    }

    /// The same as a process that may open so many files; a word of the shell.
    pub fn command_with_files(&self, files: &str, args: &[&str]) -> Command {
        let mut command = in_dir(self.dir.path(), "sh");
        command.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\""), PROGRAM]).args(args);
        command
    }

    /// Runs a command to its end.
    pub async fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, "").await
    }

    pub async fn run_with(&self, args: &[&str], stdin: &str) -> Ran {
        Running::start(self.command(args), stdin).wait().await
    }

    /// Runs a command on a terminal, whose keys are these; it shows both outputs as one, [`Ran::stdout`].
    pub async fn run_on_a_terminal(&self, args: &[&str], keys: &str) -> Ran {
        self.start_on_a_terminal(args, keys).wait().await
    }

    pub fn start_on_a_terminal(&self, args: &[&str], keys: &str) -> Running {
        let words = [PROGRAM].iter().chain(args).map(|word| format!("'{word}'"));
        let mut script = in_dir(self.dir.path(), "script");
        script.args(["--quiet", "--return", "--command", &words.collect::<Vec<_>>().join(" "), "/dev/null"]);
        Running::start(script, keys)
    }

    /// Runs a command that has to go well, and reads its JSON.
    pub async fn json(&self, args: &[&str]) -> Value {
        let all: Vec<&str> = ["--output", "json"].iter().chain(args).copied().collect();
        self.run(&all).await.ok().json()
    }

    pub async fn serve(&self) -> Running {
        self.serve_with(&[]).await
    }

    /// Starts the provider with these variables and waits until it answers.
    pub async fn serve_with(&self, env: &[(&str, &str)]) -> Running {
        let mut command = self.command(&["serve"]);
        command.envs(env.iter().copied());
        let mut running = Running::start(command, "");
        self.answers(&mut running).await;
        running
    }

    pub async fn answers(&self, running: &mut Running) {
        let client = client();
        let url = format!("{}/.well-known/openid-configuration", self.base());
        wait_for("an answer", async || {
            if let Some(ran) = running.ended() {
                panic!("it ended: {ran:?}");
            }
            client.get(&url).send().await.ok().filter(|answer| answer.status().is_success())
        })
        .await;
    }

    /// A browser that talks to the process.
    pub fn browser(&self) -> Browser {
        Browser::new(over_the_wire(&self.base()), &self.issuer)
    }

    /// Where the process itself listens; one of several has the issuer of all.
    pub fn base(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub async fn sign_in(&self, browser: &mut Browser, username: &str, password: &str) -> Page {
        let page = browser.get("/login").await;
        let page = browser.submit(&page, &[("username", username), ("password", password)]).await;
        browser.follow(page).await
    }

    pub async fn is_signed_in(&self, browser: &mut Browser) -> bool {
        let page = browser.get("/login").await;
        assert_eq!(page.status, 200, "{}", page.body);
        !page.body.contains("id=\"login-submit\"")
    }

    pub fn authorize_url(&self, scope: &str) -> String {
        let scope = scope.replace(' ', "+");
        format!(
            "{}/authorize?client_id=web&response_type=code&redirect_uri={CALLBACK}&scope={scope}&state=xyz",
            self.issuer
        )
    }

    /// A code for whoever signs in with this name and password.
    pub async fn code(&self, browser: &mut Browser, username: &str, password: &str) -> String {
        let page = browser.get(&self.authorize_url("openid profile offline_access")).await;
        let page = browser.follow(page).await;
        let page = browser.submit(&page, &[("username", username), ("password", password)]).await;
        let page = browser.follow(page).await;
        page.location_params().remove("code").expect("a code")
    }

    pub async fn tokens(&self, browser: &mut Browser, username: &str, password: &str) -> TokenAnswer {
        let code = self.code(browser, username, password).await;
        let fields = [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", CALLBACK)];
        let answer = self.call("web", SITE_SECRET, "/token", &fields).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer
    }

    pub async fn refresh(&self, token: &str) -> TokenAnswer {
        self.call("web", SITE_SECRET, "/token", &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    /// A request of a client that authenticates.
    pub async fn call(&self, client_id: &str, secret: &str, path: &str, fields: &[(&str, &str)]) -> TokenAnswer {
        let basic = format!("Basic {}", STANDARD.encode(format!("{client_id}:{secret}")));
        let headers = [("authorization", basic.as_str())];
        let page = self.browser().send(http::Method::POST, path, Some(fields), &headers).await;
        let body = if page.body.is_empty() { Value::Null } else { page.json() };
        TokenAnswer { status: page.status.as_u16(), body }
    }

    /// Whether a client can get a token for itself.
    pub async fn is_accepted(&self, client_id: &str, secret: &str) -> bool {
        let answer = self.call(client_id, secret, "/token", &[("grant_type", "client_credentials")]).await;
        match (answer.status, answer.error()) {
            (200, _) => true,
            (401, "invalid_client") => false,
            _ => panic!("{answer:?}"),
        }
    }

    pub async fn userinfo(&self, token: &str) -> u16 {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        self.browser().send(http::Method::GET, "/userinfo", None, &headers).await.status.as_u16()
    }

    pub async fn within_a_second(&self, what: &str, holds: impl AsyncFnMut() -> bool) {
        within_a_second(what, holds).await;
    }
}

/// Asks until it holds. Whatever is asked later than a second from now has to be answered so.
pub async fn within_a_second(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let changed = Instant::now();
    loop {
        let asked = Instant::now();
        if holds().await {
            return;
        }
        assert!(asked - changed <= Duration::from_secs(1), "not true a second later: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Follows no redirects, and asks nobody but whom it is told to ask.
pub fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy();
    builder.timeout(PATIENCE).build().expect("a client")
}

/// A router that hands every request on to the process behind `base`.
pub fn over_the_wire(base: &str) -> Router {
    let (client, base) = (client(), base.to_owned());
    Router::new().fallback(move |request: Request| async move {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let sent = client.request(parts.method, format!("{base}{path}")).headers(parts.headers).body(body).send();
        let answer = sent.await.expect("an answer");
        let mut response = Response::new(Body::empty());
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        *response.body_mut() = Body::from(answer.bytes().await.expect("a body"));
        response
    })
}
