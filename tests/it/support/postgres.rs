//! A PostgreSQL of a test's own, as durable as it comes, that may crash and come back; and a line to one that loses
//! the answer to a commit.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::disk::{SmallDisk, is_root};
use super::process::free_port;

/// A server in a temporary directory, with everything as PostgreSQL ships it but for the size.
pub struct Postgres {
    dir: TempDir,
    bin: PathBuf,
    port: u16,
    small: Option<SmallDisk>,
}

impl Postgres {
    pub async fn start() -> Self {
        Self::prepare(false).await
    }

    /// With a tablespace `small` on a small disk.
    pub async fn start_with_small_disk() -> Self {
        Self::prepare(true).await
    }

    async fn prepare(small: bool) -> Self {
        let dir = TempDir::new().expect("a directory");
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(dir.path()));
        }
        let small = small.then(|| SmallDisk::mount(&dir.path().join("small"), "24m"));
        let server = Self { dir, bin: programs(), port: free_port(), small };
        let data = server.data();
        let mut initdb = server.command("initdb");
        initdb.args(["-U", "keyward", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync", "-D"]).arg(data);
        run(&mut initdb);
        server.come_up();
        if let Some(disk) = &server.small {
            let place = server.dir.path().join("small/space");
            let mut mkdir = server.as_postgres("mkdir");
            mkdir.arg(&place);
            run(&mut disk.inside(&mkdir));
            server.sql("postgres", &format!("CREATE TABLESPACE small LOCATION '{}'", place.display())).await;
        }
        server
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// PostgreSQL refuses to run as root.
    fn as_postgres(&self, program: impl AsRef<Path>) -> Command {
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program.as_ref());
            command
        } else {
            Command::new(program.as_ref())
        };
        command.current_dir(self.dir.path());
        command
    }

    fn command(&self, program: &str) -> Command {
        self.as_postgres(self.bin.join(program))
    }

    /// Starts it, after a crash as well; returns once it takes connections.
    pub fn come_up(&self) {
        let options = format!(
            "-p {} -k {} -h 127.0.0.1 -c max_connections=100 -c shared_buffers=64MB",
            self.port,
            self.dir.path().display()
        );
        let mut start = self.command("pg_ctl");
        start.arg("-D").arg(self.data()).args(["-w", "-l"]).arg(self.dir.path().join("log"));
        start.args(["-o", &options, "start"]);
        match &self.small {
            Some(disk) => run(&mut disk.inside(&start)),
            None => run(&mut start),
        }
    }

    /// Every process of it ends at once, without a word to the clients and without writing anything down.
    pub fn crash(&self) {
        run(self.command("pg_ctl").arg("-D").arg(self.data()).args(["-m", "immediate", "stop"]));
    }

    pub fn disk(&self) -> &SmallDisk {
        self.small.as_ref().expect("a server with a small disk")
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://keyward@127.0.0.1:{}/{database}", self.port)
    }

    pub async fn sql(&self, database: &str, sql: &str) {
        execute(&self.url(database), sql).await;
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.command("pg_ctl").arg("-D").arg(self.data()).args(["-m", "immediate", "stop"]).output();
    }
}

/// Runs one statement on a connection of its own.
pub async fn execute(url: &str, sql: &str) {
    let mut conn = PgConnection::connect(url).await.expect("the database");
    sqlx::query(AssertSqlSafe(sql.to_owned()))
        .execute(&mut conn)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
    conn.close().await.expect("closing");
}

/// Where the newest PostgreSQL of a Debian machine is, or the one in the path.
fn programs() -> PathBuf {
    let find = "ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1";
    let found = Command::new("sh").args(["-c", find]).output().expect("a shell");
    let found = String::from_utf8(found.stdout).expect("text");
    if found.trim().is_empty() { PathBuf::new() } else { PathBuf::from(found.trim()) }
}

fn run(command: &mut Command) {
    // Not its output by pipes: a server that it leaves behind would hold them open.
    let log = tempfile::NamedTempFile::new().expect("a file");
    command.stdout(log.reopen().expect("a file")).stderr(log.reopen().expect("a file"));
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {}", std::fs::read_to_string(log.path()).unwrap_or_default());
}

/// What a line does with the next commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Passes it on, and its answer.
    Nowhere,
    /// Breaks before the server hears it.
    Before,
    /// Lets the server do it, and breaks before its answer is heard.
    After,
}

/// A line between a provider and its PostgreSQL.
pub struct Line {
    port: u16,
    cut: Arc<AtomicU8>,
}

impl Line {
    /// To the server of this URL.
    pub async fn to(url: &str) -> Self {
        let server = url::Url::parse(url).expect("a URL");
        let server = (server.host_str().expect("a host").to_owned(), server.port().unwrap_or(5432));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let cut = Arc::new(AtomicU8::new(0));
        tokio::spawn({
            let cut = Arc::clone(&cut);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let server = TcpStream::connect(server.clone()).await.expect("the server");
                    tokio::spawn(carry(client, server, Arc::clone(&cut)));
                }
            }
        });
        Self { port, cut }
    }

    /// The same database through this line.
    pub fn url(&self, url: &str) -> String {
        let mut through = url::Url::parse(url).expect("a URL");
        through.set_port(Some(self.port)).expect("a port");
        through.to_string()
    }

    /// For the next commit alone.
    pub fn cut(&self, cut: Cut) {
        self.cut.store(cut as u8, Ordering::SeqCst);
    }

    /// Whether the commit that it waited for came.
    pub fn was_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst) == Cut::Nowhere as u8
    }
}

/// What a connection was asked so far: which of its prepared statements change something, and whether a transaction
/// is open.
#[derive(Default)]
struct Asked {
    writes: HashSet<Vec<u8>>,
    in_transaction: bool,
    begun: bool,
    /// Of a message that has not come whole.
    rest: Vec<u8>,
}

impl Asked {
    /// Whether these bytes ask for a commit: by that word, or by a change outside a transaction.
    fn commits(&mut self, bytes: &[u8]) -> bool {
        self.rest.extend_from_slice(bytes);
        let mut commits = false;
        // The first message of a connection has no type.
        while let Some(length) = self.rest.get(usize::from(self.begun)..).and_then(|rest| rest.first_chunk()) {
            let end = usize::from(self.begun) + u32::from_be_bytes(*length) as usize;
            if self.rest.len() < end {
                break;
            }
            let message: Vec<u8> = self.rest.drain(..end).collect();
            if self.begun {
                commits |= self.message(message[0], &message[5..]);
            }
            // A request for TLS (8 bytes) comes before the one that has no type either.
            self.begun |= end > 8;
        }
        commits
    }

    fn message(&mut self, kind: u8, body: &[u8]) -> bool {
        let mut texts = body.split(|byte| *byte == 0);
        let (first, second) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
        let starts = |sql: &[u8], words: &[&str]| words.iter().any(|word| sql.starts_with(word.as_bytes()));
        match kind {
            b'P' if starts(second, &["INSERT", "UPDATE", "DELETE", "WITH"]) => {
                self.writes.insert(first.to_owned());
            }
            b'B' => return !self.in_transaction && self.writes.contains(second),
            b'Q' if starts(first, &["BEGIN"]) => self.in_transaction = true,
            b'Q' if starts(first, &["COMMIT", "ROLLBACK"]) => {
                self.in_transaction = false;
                return starts(first, &["COMMIT"]);
            }
            _ => {}
        }
        false
    }
}

/// Carries one connection until either side ends it, or it is cut: both sides then see it end.
async fn carry(mut client: TcpStream, mut server: TcpStream, cut: Arc<AtomicU8>) {
    let (mut heard, mut told) = ([0; 16 * 1024], [0; 16 * 1024]);
    let mut asked = Asked::default();
    let mut deaf = false;
    loop {
        tokio::select! {
            read = client.read(&mut heard) => {
                let Ok(n @ 1..) = read else { return };
                let bytes = &heard[..n];
                if asked.commits(bytes) {
                    match cut.swap(Cut::Nowhere as u8, Ordering::SeqCst) {
                        cut if cut == Cut::Before as u8 => return,
                        cut if cut == Cut::After as u8 => deaf = true,
                        _ => {}
                    }
                }
                if server.write_all(bytes).await.is_err() { return }
            }
            read = server.read(&mut told) => {
                let Ok(n @ 1..) = read else { return };
                // It was done, for this is the answer.
                if deaf { return }
                if client.write_all(&told[..n]).await.is_err() { return }
            }
        }
    }
}
