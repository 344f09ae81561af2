//! What stands in `deploy/` and in the checklist of `docs/production.md` still fits the program: its configuration
//! passes, its commands parse, the files that it names are there. Whether systemd, Docker and nginx take it, is tried
//! by hand where they are.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::process::{Ran, Running, Site};

/// What `cli/serve.rs` gives to requests in flight, in seconds.
const DRAIN: u64 = 20;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn file(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The fenced blocks of one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let ends_at_fence = |block: &str| block.split("```").next().unwrap_or_default().to_owned();
    text.split(&fence).skip(1).map(ends_at_fence).collect()
}

/// Lines that say something to the program.
fn spoken(config: &str) -> usize {
    config.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).count()
}

/// A directory with this configuration and the secrets beside it, as `/etc/keyward` has them.
fn site(config: &str) -> Site {
    let site = Site::empty();
    site.configure(config);
    fs::write(site.path("database-url"), "postgres://keyward:hunter2@127.0.0.1/keyward\n").expect("written");
    write_master_key(&site.path("master.key"));
    site
}

fn write_master_key(path: &Path) {
    fs::write(path, format!("{}\n", "A".repeat(43))).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o400)).expect("a mode");
}

async fn run(site: &Site, args: &[&str], variables: &BTreeMap<String, String>) -> Ran {
    let mut command = site.command(args);
    command.envs(variables);
    Running::start(command, "").wait().await
}

/// Whether a command line is one of ours. What comes before `--help` is read; what is missing is not missed.
async fn parses(args: &[&str]) -> bool {
    let site = Site::empty();
    let args: Vec<&str> = args.iter().copied().chain(["--help"]).collect();
    site.run(&args).await.code == Some(0)
}

mod configuration {
    use super::*;

    #[tokio::test]
    async fn production_takes_twelve_lines() {
        let config = file("deploy/keyward.toml");
        assert!(spoken(&config) <= 12, "{} lines", spoken(&config));
        let ran = site(&config).run(&["config", "check"]).await.ok();
        assert_eq!(ran.stderr, "", "nothing to remark on");

        // A file that is not there is noticed, so the check above did read the secret.
        let without = site(&config);
        fs::remove_file(without.path("database-url")).expect("removed");
        without.run(&["config", "check"]).await.refused(&["database-url"]);
    }

    #[tokio::test]
    async fn what_the_documents_show_passes() {
        let mut seen = 0;
        for document in ["README.md", "docs/production.md"] {
            for block in blocks(&file(document), "toml").iter().filter(|block| block.contains("issuer")) {
                let ran = site(&block.replace("/run/secrets/", "")).run(&["config", "check"]).await.ok();
                assert_eq!(ran.stderr, "", "{document}");
                assert!(spoken(block) <= 12, "{document}");
                seen += 1;
            }
        }
        assert_eq!(seen, 2);
    }

    #[test]
    fn the_checklist_shows_the_file_that_it_installs() {
        let shown = blocks(&file("docs/production.md"), "toml").remove(0);
        let parse = |text: &str| text.parse::<toml::Table>().expect("TOML");
        assert_eq!(parse(&shown), parse(&file("deploy/keyward.toml")));
    }
}

mod unit {
    use super::*;

    /// Every value of a key, in order.
    fn values(key: &str) -> Vec<String> {
        let unit = file("deploy/keyward.service");
        let lines = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        lines.map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn it_starts_a_command_of_ours() {
        let commands = values("ExecStart");
        let [program, args @ ..] = &commands[0].split(' ').collect::<Vec<_>>()[..] else { panic!("{commands:?}") };
        assert_eq!((commands.len(), Path::new(program).file_name()), (1, Some("keyward".as_ref())));
        assert!(args.contains(&"serve") && parses(args).await, "{args:?}");
        assert!(!parses(&["--confg", "/etc/keyward/keyward.toml", "serve"]).await, "others are refused");
    }

    /// What it loads as a credential is what the program is told to read, in the place of what stands in the file.
    #[tokio::test]
    async fn its_credentials_are_read() {
        let site = Site::empty();
        site.configure(&file("deploy/keyward.toml"));
        let credentials = site.path("credentials");
        fs::create_dir(&credentials).expect("made");
        for credential in values("LoadCredential") {
            let (name, from) = credential.split_once(':').expect("a name and a file");
            assert_eq!(from, format!("/etc/keyward/{name}"));
            match name {
                "master.key" => write_master_key(&credentials.join(name)),
                _ => fs::write(credentials.join(name), "sqlite:///var/lib/keyward/keyward.db\n").expect("written"),
            }
        }
        let directory = credentials.display().to_string();
        let pairs = values("Environment").into_iter().map(|pair| {
            let (name, value) = pair.split_once('=').expect("a name and a value");
            (name.to_owned(), value.replace("%d", &directory))
        });
        let variables: BTreeMap<_, _> = pairs.collect();
        for path in variables.values() {
            assert!(Path::new(path).exists(), "{path} is loaded");
        }
        run(&site, &["config", "check"], &variables).await.ok();
        // Without them the database's URL is not found beside the file.
        site.run(&["config", "check"]).await.refused(&["database-url"]);
    }

    #[test]
    fn it_waits_for_requests_in_flight() {
        let stop = values("TimeoutStopSec").remove(0);
        let seconds: u64 = stop.strip_suffix('s').and_then(|number| number.parse().ok()).expect("seconds");
        assert!(seconds > DRAIN);
    }
}

mod image {
    use super::*;

    /// Instructions with their continuation lines joined.
    fn instructions() -> Vec<String> {
        let text = file("deploy/Dockerfile").replace("\\\n", " ");
        text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(str::to_owned).collect()
    }

    /// The words of an instruction in its exec form, without the quotes.
    fn exec(instruction: &str) -> Vec<String> {
        let instructions = instructions();
        let found = instructions.iter().find_map(|line| line.strip_prefix(instruction));
        let (_, list) = found.and_then(|rest| rest.split_once('[')).unwrap_or_else(|| panic!("no {instruction}"));
        let (list, _) = list.split_once(']').expect("an exec form");
        list.split(',').map(|word| word.trim().trim_matches('"').to_owned()).collect()
    }

    #[tokio::test]
    async fn its_commands_are_ours() {
        assert_eq!(exec("ENTRYPOINT"), ["/keyward"]);
        let command = exec("CMD");
        assert!(parses(&command.iter().map(String::as_str).collect::<Vec<_>>()).await, "{command:?}");
        let check = exec("HEALTHCHECK");
        assert_eq!(check[0], "/keyward");
        assert!(parses(&check[1..].iter().map(String::as_str).collect::<Vec<_>>()).await, "{check:?}");
    }

    /// A build of only these files: they are there, the builder gets them, and cargo misses none.
    #[test]
    fn it_copies_what_cargo_needs() {
        let ignore = file("deploy/Dockerfile.dockerignore");
        let slim = tempfile::tempdir().expect("a directory");
        let instructions = instructions();
        let copies = instructions.iter().filter_map(|line| line.strip_prefix("COPY "));
        for copy in copies.filter(|copy| !copy.starts_with("--from")) {
            let words: Vec<&str> = copy.split_whitespace().collect();
            for source in &words[..words.len() - 1] {
                assert!(ignore.lines().any(|line| line == format!("!{source}")), "{source} is not ignored");
                let copied = Command::new("cp").arg("-r").arg(root().join(source)).arg(slim.path()).status();
                assert!(copied.expect("cp").success(), "{source}");
            }
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["metadata", "--no-deps", "--offline", "--locked", "--format-version=1"]);
        let output = cargo.current_dir(slim.path()).output().expect("cargo");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for included in ["migrations", "templates", "src/main.rs"] {
            assert!(slim.path().join(included).exists(), "{included}");
        }
    }
}

mod compose {
    use super::*;

    /// The values of a key anywhere in the file, without comments and quotes.
    fn values(key: &str) -> Vec<String> {
        let compose = file("deploy/compose.yaml");
        let lines = compose.lines().filter_map(|line| line.trim().strip_prefix(key)?.strip_prefix(": "));
        let bare = |value: &str| value.split(" #").next().unwrap_or_default().trim().trim_matches('"').to_owned();
        lines.map(bare).collect()
    }

    #[test]
    fn it_names_files_that_are_there() {
        let here = root().join("deploy");
        let context = here.join(values("context").remove(0));
        assert!(context.join(values("dockerfile").remove(0)).is_file());
        let (secrets, others): (Vec<_>, Vec<_>) = values("file").into_iter().partition(|f| f.starts_with("secrets/"));
        assert_eq!((secrets.len(), others.len()), (2, 2));
        for file in others {
            assert!(here.join(&file).is_file(), "{file}");
        }
        // Secrets are made by whoever runs it, by the lines at its head, and never committed.
        for secret in secrets {
            assert!(file("deploy/compose.yaml").contains(&format!("> {secret}")), "{secret} is made");
        }
        assert!(file(".gitignore").lines().any(|line| line == "/deploy/secrets"));
    }

    #[tokio::test]
    async fn its_settings_fit_the_configuration() {
        let site = Site::empty();
        site.configure(&file("deploy/keyward.toml"));
        let secret = site.path("secret");
        fs::write(&secret, "postgres://keyward:hunter2@postgres/keyward\n").expect("written");
        let compose = file("deploy/compose.yaml");
        let names = compose.lines().filter_map(|line| line.trim().split_once(": ")).map(|(name, _)| name);
        let names = names.filter(|name| name.starts_with("KEYWARD_"));
        let mut variables: BTreeMap<_, _> = names.map(|name| (name.to_owned(), values(name).remove(0))).collect();
        let url_file = variables.get_mut("KEYWARD_DATABASE__URL_FILE").expect("the database");
        *url_file = secret.display().to_string();
        let ran = run(&site, &["config", "check"], &variables).await.ok();
        assert_eq!(ran.stderr, "");

        let dump = run(&site, &["config", "dump"], &variables).await.ok().stdout;
        let dump: toml::Table = toml::from_str(&dump).expect("TOML");
        assert_eq!(dump["key_dir"].as_str(), Some("/keys"), "the volume");
        assert!(dump.get("master_key_file").is_none(), "and not the host's file");
    }

    #[test]
    fn it_waits_for_requests_in_flight() {
        for grace in values("stop_grace_period") {
            let seconds: u64 = grace.strip_suffix('s').and_then(|number| number.parse().ok()).expect("seconds");
            assert!(seconds > DRAIN);
        }
        assert!(!values("stop_grace_period").is_empty());
    }
}

mod documents {
    use super::*;

    const DOCUMENTS: [&str; 2] = ["README.md", "docs/production.md"];

    /// The commands in a document: in its shell blocks, and in backticks in its text.
    fn commands(text: &str) -> Vec<String> {
        let mut pieces = Vec::new();
        for block in blocks(text, "sh") {
            for line in block.replace("\\\n", " ").replace("|\n", "| ").lines() {
                pieces.extend(line.split(['|', '&', ';', '#']).map(str::to_owned));
            }
        }
        let outside_blocks = text.split("```").step_by(2);
        pieces.extend(outside_blocks.flat_map(|prose| prose.split('`').skip(1).step_by(2)).map(str::to_owned));
        let ours = |piece: String| piece.trim().strip_prefix("keyward ").map(str::to_owned);
        pieces.into_iter().filter_map(ours).collect()
    }

    /// As a shell splits it, as far as our documents go: words, double quotes, redirections.
    fn words(command: &str) -> Vec<String> {
        let quoted = command.split('"').enumerate().flat_map(|(n, part)| match n % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        });
        quoted.take_while(|word| !word.starts_with(['<', '>'])).collect()
    }

    #[tokio::test]
    async fn their_commands_are_ours() {
        for document in DOCUMENTS {
            let commands = commands(&file(document));
            assert!(commands.len() >= 5, "{document}: {commands:?}");
            let mut strange = Vec::new();
            for command in commands {
                let words = words(&command);
                if !parses(&words.iter().map(String::as_str).collect::<Vec<_>>()).await {
                    strange.push(command);
                }
            }
            assert!(strange.is_empty(), "{document}: {strange:?}");
        }
    }

    #[test]
    fn their_links_lead_somewhere() {
        for document in DOCUMENTS {
            let at = root().join(document);
            let text = file(document);
            let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            for link in links.filter(|link| !link.starts_with("http") && !link.starts_with('#')) {
                let target = at.parent().expect("a directory").join(link);
                assert!(target.exists(), "{document} links to {link}");
            }
        }
    }
}
