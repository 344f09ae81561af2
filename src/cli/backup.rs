//! `keyward backup`: a consistent copy of a running SQLite, and a word on what else to keep.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use url::Url;

use super::Global;
use super::output::{self, Format};
use super::progress::Progress;
use crate::ambient::{Clock as _, SystemClock};
use crate::config::{Config, Sources, named_files};
use crate::keys::master_key_path;
use crate::store::backup::{copy_sqlite, database_file};

pub const EXAMPLES: &str = "\
Examples:
  keyward backup /var/backups/keyward/            (makes keyward-20300102T030405Z.db there)
  keyward backup --force /var/backups/keyward.db

The provider may run meanwhile. docs/backup.md tells how to restore, and what PostgreSQL needs.";

#[derive(Args)]
pub struct BackupArgs {
    /// The file to write, or a directory, in which the file is named after the time.
    #[arg(value_name = "FILE|DIR")]
    target: PathBuf,
    /// Replace the file if it exists.
    #[arg(long)]
    force: bool,
}

pub async fn run(args: BackupArgs, global: &Global, format: Format) -> anyhow::Result<()> {
    let sources = super::sources(global);
    let config = super::load_from(&sources)?;
    let keep = what_to_keep(&config, &sources)?;
    let Some(database) = database_file(&config.database.url)? else {
        bail!("{}", advice_for_postgres(&config.database.url, &keep));
    };
    let database = fs::canonicalize(&database).with_context(|| database.display().to_string())?;
    let target = target_file(&args.target)?;
    refuse_database(&target, &database)?;
    ensure!(args.force || !target.exists(), "{} exists; name another file, or pass --force", target.display());
    ensure!(
        !target.exists() || is_sqlite(&target),
        "{} is no backup, so it is not replaced; name another file",
        target.display()
    );

    let progress = Progress::spinner(format!("copying {}", database.display()));
    let mut told_to_end = signal(SignalKind::terminate())?;
    let written = tokio::select! {
        written = write(&config, &target, args.force) => written,
        _ = tokio::signal::ctrl_c() => bail!("interrupted; nothing was written"),
        _ = told_to_end.recv() => bail!("told to end; nothing was written"),
    };
    drop(progress);
    let bytes = written?;
    report(format, &target, bytes, &database, &keep);
    Ok(())
}

/// Copies under a temporary name beside the target, so that whoever finds the target finds all of it.
async fn write(config: &Config, target: &Path, force: bool) -> anyhow::Result<u64> {
    let dir = target.parent().context("the file has no directory")?;
    let place = || dir.display().to_string();
    // In a directory, which goes with whatever SQLite puts beside the copy; readable by its owner alone, as is every file
    // of this kind.
    let aside = tempfile::Builder::new().prefix(".keyward-backup-").tempdir_in(dir).with_context(place)?;
    let partial = tempfile::NamedTempFile::new_in(aside.path()).with_context(place)?;
    copy_sqlite(&config.database.url, partial.path()).await?;
    partial.as_file().sync_all().with_context(place)?;
    let bytes = partial.as_file().metadata()?.len();
    let persisted = if force { partial.persist(target) } else { partial.persist_noclobber(target) };
    persisted.map_err(|error| error.error).with_context(|| target.display().to_string())?;
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(place)?;
    Ok(bytes)
}

/// Where the backup goes; in a directory it is named after the time.
fn target_file(target: &Path) -> anyhow::Result<PathBuf> {
    if target.is_dir() {
        let time: String = output::time(SystemClock.now()).chars().filter(|c| !"-:".contains(*c)).collect();
        // Whole seconds are enough of a name.
        let seconds = time.split(['.', 'Z']).next().unwrap_or_default();
        return Ok(fs::canonicalize(target)?.join(format!("keyward-{seconds}Z.db")));
    }
    let wants_dir = target.as_os_str().as_encoded_bytes().ends_with(b"/");
    let absolute = std::path::absolute(target)?;
    let dir = absolute.parent().and_then(|dir| fs::canonicalize(dir).ok()).filter(|dir| dir.is_dir() && !wants_dir);
    let dir = dir.with_context(|| format!("{}: there is no such directory; make it first", target.display()))?;
    Ok(dir.join(target.file_name().context("name a file")?))
}

/// Not even `--force` makes the database its own backup.
fn refuse_database(target: &Path, database: &Path) -> anyhow::Result<()> {
    let id = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    let beside = |suffix: &str| {
        let mut name = database.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let own = [database.to_owned(), beside("-wal"), beside("-shm"), beside("-journal")];
    let same = own.iter().any(|own| own.as_path() == target || (id(own).is_some() && id(own) == id(target)));
    ensure!(!same, "{} is the database itself; name another file", target.display());
    Ok(())
}

/// Whether a file holds an SQLite database. All others are somebody's who did not mean this: a key, a configuration, a
/// device.
fn is_sqlite(file: &Path) -> bool {
    const MAGIC: &[u8; 16] = b"SQLite format 3\0";
    let mut head = [0; MAGIC.len()];
    let is_file = fs::metadata(file).is_ok_and(|found| found.is_file());
    is_file && File::open(file).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head == *MAGIC
}

/// What the database is worth nothing without, each with its place.
fn what_to_keep(config: &Config, sources: &Sources) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let master = master_key_path(&config.key_source);
    let mut keep = vec![("the master key; keep it apart from the copy, which it opens".to_owned(), master.clone())];
    keep.extend(sources.files.iter().map(|file| ("the configuration".to_owned(), file.clone())));
    let named = named_files(sources)?.into_iter().filter(|(_, file)| *file != master);
    keep.extend(named.map(|(setting, file)| (format!("`{setting}`"), file)));
    for (_, file) in &mut keep {
        *file = std::path::absolute(&*file)?;
    }
    Ok(keep)
}

fn report(format: Format, target: &Path, bytes: u64, database: &Path, keep: &[(String, PathBuf)]) {
    let restore = restore_steps(target, database);
    if format == Format::Json {
        let keep: Vec<Value> = keep.iter().map(|(what, file)| json!({ "what": what, "file": file })).collect();
        output::object(
            format,
            &json!({
                "backup": target,
                "bytes": bytes,
                "integrity": "ok",
                "keep": keep,
                "environment": variables(),
                "restore": restore,
            }),
        );
        return;
    }
    output::object(format, &json!({ "backup": target, "bytes": bytes, "integrity": "ok" }));
    output::line("\nKeep as well:");
    for (what, file) in keep {
        output::line(&format!("  {}  ({what})", file.display()));
    }
    if !variables().is_empty() {
        output::line(&format!("  the environment: {}", variables().join(" ")));
    }
    output::line("\nTo restore:");
    for (at, step) in restore.iter().enumerate() {
        output::line(&format!("  {}. {step}", at + 1));
    }
}

/// Settings that stand in no file.
fn variables() -> Vec<String> {
    super::environment().into_iter().map(|(name, _)| name).filter(|name| name.starts_with("KEYWARD_")).collect()
}

fn restore_steps(target: &Path, database: &Path) -> Vec<String> {
    let directory = database.parent().unwrap_or(Path::new(".")).display();
    let (target, database) = (target.display(), database.display());
    vec![
        "Stop every process of Keyward on this database.".to_owned(),
        format!("rm -f '{database}-wal' '{database}-shm'"),
        // As root: for the user that Keyward runs as, who is the directory's.
        format!("cp -p '{target}' '{database}' && chown --reference='{directory}' '{database}'"),
        "Put the master key, the configuration and its files back in their places, and start Keyward.".to_owned(),
    ]
}

/// PostgreSQL copies itself better than we could.
fn advice_for_postgres(database_url: &str, keep: &[(String, PathBuf)]) -> String {
    let files: String = keep.iter().map(|(what, file)| format!("\n  {}  ({what})", file.display())).collect();
    format!(
        "the database is PostgreSQL, which has tools of its own for this:\n  \
         pg_dump --format=custom --file=keyward.dump '{url}'\n  \
         pg_restore --clean --if-exists --no-owner --dbname='{url}' keyward.dump    (to restore, with Keyward stopped)\n\
         The password comes from PGPASSWORD or ~/.pgpass. Keep as well:{files}",
        url = without_secrets(database_url)
    )
}

/// Parameters of a URL that PostgreSQL's own tools take and that hold no secret, here and there.
const PARAMETERS: [(&str, &str); 11] = [
    ("sslmode", "sslmode"),
    ("ssl-mode", "sslmode"),
    ("sslrootcert", "sslrootcert"),
    ("ssl-root-cert", "sslrootcert"),
    ("sslcert", "sslcert"),
    ("ssl-cert", "sslcert"),
    ("sslkey", "sslkey"),
    ("ssl-key", "sslkey"),
    ("host", "host"),
    ("port", "port"),
    ("options", "options"),
];

fn without_secrets(database_url: &str) -> String {
    let Ok(mut url) = Url::parse(database_url) else { return "postgres://USER@HOST/DATABASE".to_owned() };
    // It has a host, so it takes this.
    let _ = url.set_password(None);
    let theirs = |name: &str| PARAMETERS.iter().find(|(ours, _)| *ours == name).map(|(_, theirs)| *theirs);
    let kept: Vec<_> =
        url.query_pairs().filter_map(|(name, value)| Some((theirs(&name)?, value.into_owned()))).collect();
    url.set_query(None);
    if !kept.is_empty() {
        url.query_pairs_mut().extend_pairs(kept);
    }
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_for_postgres_holds_no_password() {
        let url = "postgres://k:hunter2@db/id?ssl-mode=verify-full&sslrootcert=/etc/ca.pem&password=hunter2";
        let text = advice_for_postgres(url, &[]);
        assert!(!text.contains("hunter2"), "{text}");
        assert!(text.contains("'postgres://k@db/id?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem'"), "{text}");
    }
}
