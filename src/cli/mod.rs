//! The command line: one file a command. `main` parses and reports, the commands return errors that say what to do.

mod api_key;
mod backup;
mod client;
mod completions;
mod config;
mod dev;
mod event;
mod healthcheck;
mod import;
mod key;
pub mod logging;
mod mail;
mod migrate;
mod output;
mod progress;
mod serve;
mod session;
mod systemd;
mod user;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use crate::ambient::{SystemClock, SystemRng};
use crate::app::App;
use crate::config::{Config, Sources};
use crate::crypto::secret::Secret;
use crate::store::sqlite_file;
use output::Format;

const LONG: &str = "\
An OpenID Connect provider in one binary.

`keyward dev` shows all of it on an empty directory. In production, `keyward config generate` writes a configuration to \
start from, `keyward config check` judges it, and `keyward serve` runs it. The other commands work on the same database \
while the provider runs; it follows within a second.";

const AFTER: &str = "\
Settings come from --set, then from variables like KEYWARD_DATABASE__URL, then from the file, then from defaults. \
KEYWARD_CONFIG names the file where --config does not.

Exit codes: 0 done, 1 refused or failed with the reason on standard error, 2 a command line that makes no sense.";

/// An OpenID Connect provider in one binary.
#[derive(Parser)]
#[command(name = "keyward", version, propagate_version = true, long_about = LONG, after_long_help = AFTER)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Global {
    /// A configuration file; may be repeated, later files win. Default: keyward.toml, where it exists.
    #[arg(long, global = true, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// Sets one setting for this run, like --set tokens.access_token_ttl=5m.
    #[arg(long, global = true, value_name = "SETTING=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
    /// How results are printed. JSON is one document on standard output; all else goes to standard error.
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Subcommand)]
enum Command {
    /// Run the provider.
    Serve,
    /// Run the provider with a demo app, demo credentials and nothing to set up.
    Dev(dev::DevArgs),
    /// Check, show or write the configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Bring the database up to date without serving.
    Migrate,
    /// Copy the SQLite database, also while the provider runs.
    #[command(after_help = backup::EXAMPLES)]
    Backup(backup::BackupArgs),
    /// Ask whether the provider answers: exit code 0 or 1.
    Healthcheck(healthcheck::HealthcheckArgs),
    /// Apps that people sign in to.
    #[command(subcommand)]
    Client(Box<client::ClientCommand>),
    /// People.
    #[command(subcommand)]
    User(user::UserCommand),
    /// Keys of people and partners, for programs.
    #[command(subcommand)]
    ApiKey(api_key::ApiKeyCommand),
    /// Signing keys, and the master key.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Browsers that people are signed in with.
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// What happened: sign-ins, changes of people, apps and keys, and who made them.
    #[command(subcommand)]
    Event(event::EventCommand),
    /// Mail that waits, was sent, or never will be.
    #[command(subcommand)]
    Mail(mail::MailCommand),
    /// Print the completions of a shell.
    #[command(after_help = completions::EXAMPLES)]
    Completions { shell: clap_complete::Shell },
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = parse_pair(text)?;
    // Everybody on a machine can read the command lines of its processes.
    if crate::config::holds_secret(&name, &value) {
        return Err(format!("{name} holds a password; use {name}_file, or the environment"));
    }
    Ok((name, value))
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Parses and runs; the exit code is 0, or 1 after an error on standard error, or 2 for a command line that makes
/// no sense.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return report(&error.into()),
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("keyward: {error:#}");
    ExitCode::FAILURE
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let global = cli.global;
    match cli.command {
        Command::Serve => serve::run(load(&global)?).await,
        Command::Dev(args) => dev::run(args, &global).await,
        Command::Config(command) => config::run(&command, &sources(&global), global.output),
        Command::Migrate => migrate::run(load(&global)?, global.output).await,
        Command::Backup(args) => backup::run(args, &global, global.output).await,
        Command::Healthcheck(args) => healthcheck::run(args, &global, global.output).await,
        Command::Client(command) => on_app(global, async |app, format| client::run(*command, app, format).await).await,
        Command::User(command) => on_app(global, async |app, format| user::run(command, app, format).await).await,
        Command::ApiKey(command) => on_app(global, async |app, format| api_key::run(command, app, format).await).await,
        Command::Key(command) => on_app(global, async |app, format| key::run(command, app, format).await).await,
        Command::Session(command) => on_app(global, async |app, format| session::run(command, app, format).await).await,
        Command::Event(command) => on_app(global, async |app, format| event::run(command, app, format).await).await,
        Command::Mail(mail::MailCommand::Test { to }) => mail::test(&load(&global)?, &to, global.output).await,
        Command::Mail(command) => on_app(global, async |app, format| mail::run(command, app, format).await).await,
        Command::Completions { shell } => {
            completions::run::<Cli>(shell, global.output);
            Ok(())
        }
    }
}

fn sources(global: &Global) -> Sources {
    let mut files = global.config.clone();
    if let Some(file) = std::env::var_os("KEYWARD_CONFIG").filter(|_| files.is_empty()) {
        files.push(file.into());
    }
    let default = PathBuf::from("keyward.toml");
    if files.is_empty() && default.exists() {
        files.push(default);
    }
    Sources { files, env: environment(), flags: global.set.clone() }
}

/// Variables that are text; one that is not cannot be a setting of ours.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn load(global: &Global) -> anyhow::Result<Config> {
    load_from(&sources(global))
}

fn load_from(sources: &Sources) -> anyhow::Result<Config> {
    let loaded = crate::config::load(sources.clone())?;
    for warning in &loaded.warnings {
        eprintln!("keyward: warning: {warning}");
    }
    Ok(loaded.config)
}

/// Runs a command that works on the database and ends.
async fn on_app(global: Global, command: impl AsyncFnOnce(&App, Format) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let config = load(&global)?;
    if let Some(missing) = sqlite_file(&config.database.url)?.filter(|file| !file.exists()) {
        // Somebody who asks about a provider that runs has most likely named another directory.
        eprintln!("keyward: there is no database at {}; making one", missing.display());
    }
    let app = progress::during("opening the database", open_config(config)).await?;
    let outcome = command(&app, global.output).await;
    app.store.close().await;
    outcome
}

async fn open_config(config: Config) -> anyhow::Result<App> {
    App::open(config, Arc::new(SystemClock), Arc::new(SystemRng)).await
}

/// A secret from standard input: the first line, without its end.
fn secret_from_stdin(what: &str) -> anyhow::Result<Secret<String>> {
    use std::io::IsTerminal as _;
    if std::io::stdin().is_terminal() {
        eprintln!("Type {what} and press Enter. It can be seen while you type; a pipe or a file hides it.");
    }
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).with_context(|| format!("reading {what} from standard input"))?;
    secret_in(&line, what, "standard input")
}

/// A secret from a file that holds nothing else.
fn secret_from_file(what: &str, path: &Path) -> anyhow::Result<Secret<String>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    secret_in(&text, what, &path.display().to_string())
}

/// One line, with or without its end. What no form can send is no secret that anybody meant.
fn secret_in(text: &str, what: &str, place: &str) -> anyhow::Result<Secret<String>> {
    let secret = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    anyhow::ensure!(!secret.is_empty(), "{what} in {place} is empty");
    anyhow::ensure!(!secret.contains(['\n', '\r']), "{place} holds more than one line; {what} is one");
    anyhow::ensure!(!secret.contains('\0'), "{what} in {place} holds U+0000, which is refused everywhere");
    Ok(Secret::new(secret.to_owned()))
}

/// What every command takes that destroys something.
#[derive(Debug, Args)]
pub struct Sure {
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Sure {
    /// Asks before something cannot be undone; without a terminal, or with `--yes`, it goes on.
    fn ask(&self, question: &str) -> anyhow::Result<()> {
        use std::io::{IsTerminal as _, Write as _};
        if self.yes || !std::io::stdin().is_terminal() {
            return Ok(());
        }
        eprint!("{question} [y/N] ");
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        anyhow::ensure!(matches!(answer.trim(), "y" | "Y" | "yes"), "not done");
        Ok(())
    }
}
