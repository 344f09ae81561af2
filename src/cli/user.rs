//! `keyward user`: people of the direct realm.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::Sure;
use super::import;
use super::output::{self, Format};
use super::progress::{READING, during};
use crate::account::declared::{Profile, create_user, hash_new_password, labels};
use crate::account::{audit, people};
use crate::app::App;
use crate::protocol::ids::UserId;
use crate::protocol::user::{LoginName, User};
use crate::store::users::REALM_DIRECT;

#[derive(Subcommand)]
pub enum UserCommand {
    /// Create a person.
    Create {
        #[arg(long)]
        username: Option<String>,
        #[arg(long)]
        email: Option<String>,
        /// The address is known to be theirs.
        #[arg(long)]
        email_verified: bool,
        #[arg(long)]
        name: Option<String>,
        /// Another standard claim, like --claim locale=nb; may be repeated.
        #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = super::parse_pair)]
        claims: Vec<(String, String)>,
        /// A role, for scopes that require one; may be repeated.
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// A group; may be repeated.
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// Read the password from the first line of standard input.
        #[arg(long, conflicts_with = "password_file")]
        password_stdin: bool,
        /// Read the password from a file.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// List people in the order they were created.
    List {
        /// How many at most.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
        /// Begin after the person with this id.
        #[arg(long)]
        after: Option<String>,
    },
    /// Show one person.
    Show { name_or_id: String },
    /// Create many people from another system, with the passwords they have there.
    #[command(long_about = import::LONG, after_help = import::EXAMPLES)]
    Import(import::ImportArgs),
    /// Set what a person may do, in place of the roles they had; scopes that need a role go with it.
    SetRoles {
        name_or_id: String,
        /// All of them; none takes every role away.
        roles: Vec<String>,
    },
    /// Set the groups that a person is in, in place of those they were in.
    SetGroups {
        name_or_id: String,
        /// All of them.
        groups: Vec<String>,
    },
    /// Set a password; signs the person out everywhere.
    SetPassword {
        name_or_id: String,
        /// Read the password from a file instead of standard input.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// Read the password from standard input (the default).
        #[arg(long, conflicts_with = "password_file")]
        password_stdin: bool,
        #[command(flatten)]
        sure: Sure,
    },
    /// Switch a person's account off; signs them out everywhere.
    Disable {
        name_or_id: String,
        #[command(flatten)]
        sure: Sure,
    },
    /// Switch it on again.
    Enable { name_or_id: String },
    /// Forget a person with everything that is theirs.
    Delete {
        name_or_id: String,
        #[command(flatten)]
        sure: Sure,
    },
}

pub async fn run(command: UserCommand, app: &App, format: Format) -> anyhow::Result<()> {
    match command {
        UserCommand::Create {
            username,
            email,
            email_verified,
            name,
            claims,
            roles,
            groups,
            password_stdin,
            password_file,
        } => {
            let mut members = Map::new();
            for (name, value) in claims {
                let value = claim(&name, value)?;
                members.insert(name, value);
            }
            if let Some(name) = name {
                members.insert("name".to_owned(), name.into());
            }
            let password = match (password_stdin, password_file) {
                (true, _) => Some(super::secret_from_stdin("the password")?),
                (false, Some(path)) => Some(super::secret_from_file("the password", &path)?),
                (false, None) => None,
            };
            let profile = Profile { username, email, email_verified, claims: members, roles, groups };
            let id = during("creating", create_user(app, profile, password, &audit::operator(app))).await?;
            show(app, format, &id).await
        }
        UserCommand::List { limit, after } => {
            let after = after.map(UserId::new);
            let items: Vec<Value> =
                during(READING, app.store.users(after.as_ref(), limit)).await?.iter().map(describe).collect();
            output::list(format, &["id", "username", "email", "name", "status"], &items);
            output::more(&items, limit, "id");
            Ok(())
        }
        UserCommand::Show { name_or_id } => {
            output::object(format, &describe(&find(app, &name_or_id).await?));
            Ok(())
        }
        UserCommand::Import(args) => import::run(args, app, format).await,
        UserCommand::SetPassword { name_or_id, password_file, password_stdin: _, sure } => {
            let user = find(app, &name_or_id).await?;
            sure.ask(&format!("Set another password for {name_or_id}, and sign them out everywhere?"))?;
            let password = match password_file {
                Some(path) => super::secret_from_file("the password", &path)?,
                None => super::secret_from_stdin("the password")?,
            };
            let hash = during("hashing", hash_new_password(app, password)).await?;
            during("signing out", people::set_password(app, &user.id, hash)).await?;
            output::object(format, &json!({ "password_set": name_or_id, "note": "signed out everywhere" }));
            Ok(())
        }
        UserCommand::SetRoles { name_or_id, roles } => {
            let user = find(app, &name_or_id).await?;
            during("changing", people::set_roles(app, &user.id, labels(roles)?)).await?;
            show(app, format, &user.id).await
        }
        UserCommand::SetGroups { name_or_id, groups } => {
            let user = find(app, &name_or_id).await?;
            during("changing", people::set_groups(app, &user.id, labels(groups)?)).await?;
            show(app, format, &user.id).await
        }
        UserCommand::Disable { name_or_id, sure } => {
            let user = find(app, &name_or_id).await?;
            sure.ask(&format!("Switch {name_or_id} off, and sign them out everywhere?"))?;
            during("signing out", people::set_enabled(app, &user.id, false)).await?;
            show(app, format, &user.id).await
        }
        UserCommand::Enable { name_or_id } => {
            let user = find(app, &name_or_id).await?;
            during("switching on", people::set_enabled(app, &user.id, true)).await?;
            show(app, format, &user.id).await
        }
        UserCommand::Delete { name_or_id, sure } => {
            let user = find(app, &name_or_id).await?;
            sure.ask(&format!("Delete {name_or_id} with everything that is theirs?"))?;
            during("deleting", people::delete(app, &user.id)).await?;
            let mut shown = json!({ "deleted": name_or_id });
            if is_declared(app, &user) {
                shown["note"] = "still declared in the configuration, so the next start makes this person anew".into();
            }
            output::object(format, &shown);
            Ok(())
        }
    }
}

/// Whether the configuration declares somebody of this name.
fn is_declared(app: &App, user: &User) -> bool {
    let own = [user.username.as_ref(), user.email.as_ref()].map(|name| name.map(|name| name.as_str()));
    let mut declared = app.config.users.iter().flat_map(|one| [one.username.as_deref(), one.email.as_deref()]);
    declared.any(|name| name.is_some_and(|name| own.contains(&Some(name))))
}

/// A claim in the type that OpenID Connect Core §5.1 gives it.
fn claim(name: &str, value: String) -> anyhow::Result<Value> {
    let parsed = || serde_json::from_str::<Value>(&value).ok();
    match name {
        "phone_number_verified" => parsed().filter(Value::is_boolean).context("phone_number_verified is true or false"),
        "address" => parsed().filter(Value::is_object).context("address is a JSON object, like {\"country\":\"NO\"}"),
        _ => Ok(value.into()),
    }
}

async fn show(app: &App, format: Format, id: &UserId) -> anyhow::Result<()> {
    let user = app.store.user(id).await?.context("the user is gone")?;
    output::object(format, &describe(&user));
    Ok(())
}

/// By id or by name. An imported id may be somebody else's name; then nobody is guessed.
pub(super) async fn find(app: &App, name_or_id: &str) -> anyhow::Result<User> {
    let by_id = app.store.user(&UserId::new(name_or_id)).await?;
    let by_name = match LoginName::parse(name_or_id) {
        Ok(name) => app.store.user_by_login(REALM_DIRECT, &name).await?.map(|(user, _)| user),
        Err(_) => None,
    };
    if let (Some(by_id), Some(by_name)) = (&by_id, &by_name) {
        let (id, name) = (&by_name.id, by_id.username.as_ref().or(by_id.email.as_ref()));
        let name = name.map_or("", String::as_str);
        ensure!(
            by_id.id == *id,
            "`{name_or_id}` is the id of one person and the name of another; say `{name}` for the one, `{id}` for the other"
        );
    }
    by_id.or(by_name).with_context(|| format!("there is no user `{name_or_id}`; `keyward user list` shows all"))
}

fn describe(user: &User) -> Value {
    json!({
        "id": user.id,
        "username": user.username,
        "email": user.email,
        "email_verified": user.email_verified,
        "name": user.claims.get("name"),
        "status": if user.is_active() { "enabled" } else { "disabled" },
        "roles": user.roles,
        "groups": user.groups,
        "claims": user.claims,
        "updated_at": output::time(user.updated_at),
    })
}
