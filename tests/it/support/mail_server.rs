//! A mail server as a process of its own (`tests/smtp/server.py`).

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::certificate::Identity;
use super::process::{Running, free_port, wait_for};
use super::python::python;

pub struct MailServer {
    dir: TempDir,
    running: Running,
    port: u16,
    args: Vec<String>,
}

/// A letter that the server has accepted.
#[derive(Clone, Debug)]
pub struct Received {
    pub from: String,
    pub to: String,
    pub hello: String,
    pub tls: bool,
    pub user: Option<String>,
    pub message: String,
}

impl Received {
    /// The value of a header.
    #[track_caller]
    pub fn header(&self, name: &str) -> String {
        let head = self.message.split("\r\n\r\n").next().unwrap_or_default().replace("\r\n ", " ");
        let found: Vec<&str> = head.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect();
        let [value] = found[..] else { panic!("{name} stands there {} times: {head}", found.len()) };
        value.to_owned()
    }
}

impl MailServer {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// `starttls` or `implicit`, with a certificate for `localhost` of an authority that only [`Self::ca_file`] knows.
    pub async fn start_tls(tls: &str, more: &[&str]) -> Self {
        let dir = TempDir::new().expect("a directory");
        let root = Identity::make("Root", None, true, 30);
        let leaf = Identity::make("localhost", Some(&root), false, 30);
        for (name, text) in [("ca.pem", root.pem()), ("cert.pem", leaf.pem()), ("key.pem", leaf.key_pem())] {
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        let path = |name: &str| dir.path().join(name).display().to_string();
        let (cert, key) = (path("cert.pem"), path("key.pem"));
        let args = [&["--tls", tls, "--cert", &cert, "--key", &key], more].concat();
        Self::start_in(dir, &args).await
    }

    pub async fn start_with(args: &[&str]) -> Self {
        Self::start_in(TempDir::new().expect("a directory"), args).await
    }

    async fn start_in(dir: TempDir, args: &[&str]) -> Self {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let port = free_port();
        let running = run(&dir, port, &args).await;
        Self { dir, running, port, args }
    }

    /// Takes it away, or brings it back at the same place.
    pub async fn set_away(&mut self, away: bool) {
        if away {
            self.running.signal("KILL");
            wait_for("its end", async || self.running.ended()).await;
        } else {
            self.running = run(&self.dir, self.port, &self.args).await;
        }
    }

    /// Makes it refuse everybody for now, or no longer.
    pub fn set_down(&self, down: bool) {
        let file = self.dir.path().join("letters.down");
        if down {
            std::fs::write(file, "").expect("written");
        } else {
            std::fs::remove_file(file).expect("removed");
        }
    }

    pub fn ca_file(&self) -> String {
        self.dir.path().join("ca.pem").display().to_string()
    }

    /// The configuration that sends mail here, with more of `[mail.smtp]`.
    pub fn config(&self, more: &str) -> String {
        format!("[mail]\ntransport = \"smtp\"\n[mail.smtp]\nhost = \"localhost\"\nport = {}\n{more}\n", self.port)
    }

    /// The same without TLS.
    pub fn plain_config(&self) -> String {
        self.config("tls = \"none\"")
    }

    pub fn letters(&self) -> Vec<Received> {
        let text = std::fs::read_to_string(self.dir.path().join("letters")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| read(&serde_json::from_str(line).expect("JSON"))).collect()
    }

    /// Waits until so many letters are there.
    pub async fn received(&self, count: usize) -> Vec<Received> {
        wait_for("the letters", async || Some(self.letters()).filter(|letters| letters.len() >= count)).await
    }
}

async fn run(dir: &TempDir, port: u16, args: &[String]) -> Running {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/smtp/server.py");
    let mut command = Command::new(python());
    command.arg(script).arg(dir.path().join("letters")).args(["--port", &port.to_string()]).args(args);
    let mut running = Running::start(command, "");
    wait_for("the mail server", async || {
        assert!(running.ended().is_none(), "{}", running.stderr());
        running.stdout().contains("listening").then_some(())
    })
    .await;
    running
}

fn read(letter: &Value) -> Received {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Received {
        from: text(&letter["from"]),
        to: text(&letter["to"][0]),
        hello: text(&letter["hello"]),
        tls: letter["tls"] == true,
        user: letter["user"].as_str().map(str::to_owned),
        message: text(&letter["message"]),
    }
}
