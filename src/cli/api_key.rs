//! `keyward api-key`: keys of people, and of partners for their administration. A key is printed once.

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Sure;
use super::output::{self, Format};
use super::progress::{READING, during};
use super::user;
use crate::account::api_keys::{self, Minted};
use crate::account::audit;
use crate::app::App;
use crate::protocol::api_key::{DEFAULT_OVERLAP, MAX_OVERLAP, Owner, Wish};
use crate::protocol::ids::{ApiKeyId, ClientId};
use crate::protocol::scope::ScopeSet;
use crate::protocol::time::{Span, Timestamp};
use crate::store::api_keys::ListedApiKey;

#[derive(Subcommand)]
pub enum ApiKeyCommand {
    /// Make a key and print it, once.
    #[command(after_help = CREATE_EXAMPLES)]
    Create(CreateArgs),
    /// List keys, the newest first; never the keys themselves.
    List {
        /// Only those of this person.
        #[arg(long, value_name = "NAME-OR-ID", conflicts_with = "partner")]
        user: Option<String>,
        /// Only a partner's own.
        #[arg(long, value_name = "CLIENT-ID")]
        partner: Option<String>,
        /// How many at most.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
        /// Begin after the key with this id.
        #[arg(long, value_name = "KID")]
        after: Option<String>,
    },
    /// Make a key of the same terms in a key's place, and print it, once.
    #[command(
        long_about = "Make a key of the same terms in a key's place, and print it, once. The old key goes on for \
                            --overlap, so that whoever uses it can change over; what was made from it ends with it."
    )]
    Rotate {
        /// The key's id: the 16 characters after `kw_uk_`.
        kid: String,
        /// How long the old key goes on, up to 7d; 0s ends it at once.
        #[arg(long, value_name = "DURATION", default_value_t = DEFAULT_OVERLAP)]
        overlap: Span,
        #[command(flatten)]
        sure: Sure,
    },
    /// End a key with all tokens and sessions that were made from it; running providers follow within a second.
    Revoke {
        kid: String,
        #[command(flatten)]
        sure: Sure,
    },
}

const CREATE_EXAMPLES: &str = "\
Examples:
  keyward api-key create --user alice --name laptop --scope \"openid profile\"
  keyward api-key create --user alice --name ci --scope quiz.read --expires-in 90d --allowed-cidr 192.0.2.0/24
  keyward api-key create --partner acme --name backend";

#[derive(Args)]
pub struct CreateArgs {
    /// Whose key it is.
    #[arg(long, value_name = "NAME-OR-ID", required_unless_present = "partner", conflicts_with = "partner")]
    user: Option<String>,
    /// A partner's own key, for /v1/partner.
    #[arg(long, value_name = "CLIENT-ID")]
    partner: Option<String>,
    /// What it is for, as lists show it.
    #[arg(long)]
    name: String,
    /// What it may do. Without it, openid profile email roles groups offline_access.
    #[arg(long)]
    scope: Option<String>,
    /// A resource that its tokens are for; may be repeated. Without one it is bound to none.
    #[arg(long = "audience", value_name = "URI")]
    audiences: Vec<String>,
    /// A network that it may be used from; may be repeated.
    #[arg(long = "allowed-cidr", value_name = "CIDR")]
    allowed_cidrs: Vec<String>,
    /// How long it lives, like 90d. Without it, `api_keys.default_ttl`.
    #[arg(long, value_name = "DURATION")]
    expires_in: Option<Span>,
    /// It opens nothing itself and is good for tokens only.
    #[arg(long)]
    exchange_only: bool,
}

pub async fn run(command: ApiKeyCommand, app: &App, format: Format) -> anyhow::Result<()> {
    match command {
        ApiKeyCommand::Create(args) => create(app, args, format).await,
        ApiKeyCommand::List { user, partner, limit, after } => {
            let owner = match (user, partner) {
                (Some(name), _) => Some(Owner::User(user::find(app, &name).await?.id)),
                (None, Some(id)) => Some(Owner::Partner(partner_id(app, &id).await?)),
                (None, None) => None,
            };
            let after = after.map(ApiKeyId::new);
            let keys = during(READING, app.store.api_keys(owner.as_ref(), after.as_ref(), limit)).await?;
            let items: Vec<Value> = keys.iter().map(|key| describe(key, app.now())).collect();
            output::list(format, &["id", "name", "owner", "scopes", "status", "expires_at", "last_used_at"], &items);
            output::more(&items, limit, "id");
            Ok(())
        }
        ApiKeyCommand::Rotate { kid, overlap, sure } => {
            ensure!(overlap <= MAX_OVERLAP && overlap >= Span::ZERO, "the overlap is at most {MAX_OVERLAP}");
            let old = find(app, &kid).await?;
            if overlap == Span::ZERO {
                sure.ask(&format!("End key {kid} (`{}`) at once?", old.record.name))?;
            }
            let author = audit::operator(app);
            let rotated = during("rotating", api_keys::rotate(app, &old.record, overlap, &author)).await;
            let minted = rotated.with_context(|| format!("`{kid}` was not rotated"))?;
            print(format, &minted);
            Ok(())
        }
        ApiKeyCommand::Revoke { kid, sure } => {
            let key = find(app, &kid).await?;
            sure.ask(&format!("End key {kid} (`{}`) with all that was made from it?", key.record.name))?;
            let author = audit::operator(app);
            let revoked = during("revoking", api_keys::revoke(app, &key.record, &author)).await?;
            ensure!(revoked, "`{kid}` was revoked before");
            output::object(format, &json!({ "revoked": kid }));
            Ok(())
        }
    }
}

async fn create(app: &App, args: CreateArgs, format: Format) -> anyhow::Result<()> {
    let scopes = args.scope.as_deref().map(str::parse::<ScopeSet>).transpose()?;
    let wish = Wish {
        name: args.name,
        scopes,
        audiences: args.audiences,
        allowed_cidrs: args.allowed_cidrs,
        expires_in: args.expires_in,
        exchange_only: args.exchange_only,
    };
    let author = audit::operator(app);
    let minted = match (args.user, args.partner) {
        (Some(name), _) => {
            let user = user::find(app, &name).await?;
            during("creating", api_keys::mint_for_user(app, &user, wish, None, &author)).await?
        }
        (None, Some(id)) => {
            let partner = partner_id(app, &id).await?;
            during("creating", api_keys::mint_for_partner(app, &partner, wish, &author)).await?
        }
        (None, None) => bail!("say whose key it is with --user or --partner"),
    };
    print(format, &minted);
    Ok(())
}

/// The id of a client that is a partner.
async fn partner_id(app: &App, id: &str) -> anyhow::Result<ClientId> {
    let id = ClientId::new(id);
    let record = app.store.client(&id).await?.with_context(|| format!("there is no client `{id}`"))?;
    ensure!(record.client.metadata.partner, "client `{id}` is no partner; `partner = true` makes it one");
    Ok(id)
}

async fn find(app: &App, kid: &str) -> anyhow::Result<ListedApiKey> {
    let key = app.store.listed_api_key(&ApiKeyId::new(kid)).await?;
    key.with_context(|| format!("there is no key `{kid}`; `keyward api-key list` shows all"))
}

/// The only time that the key is seen.
fn print(format: Format, minted: &Minted) {
    let key = &minted.record;
    if format == Format::Table {
        eprintln!("keyward: this key is shown once; keep it now");
    }
    output::object(
        format,
        &json!({
            "id": key.kid,
            "key": minted.key.expose(),
            "name": key.name,
            "scopes": key.scopes.iter().collect::<Vec<_>>(),
            "expires_at": output::time(key.expires_at),
        }),
    );
}

fn describe(key: &ListedApiKey, now: Timestamp) -> Value {
    let record = &key.record;
    let (user_id, partner_id) = match &record.owner {
        Owner::User(id) => (Some(id), None),
        Owner::Partner(id) => (None, Some(id)),
    };
    json!({
        "id": record.kid,
        "name": record.name,
        "owner": user_id.map(|id| id.as_str()).or(partner_id.map(|id| id.as_str())),
        "user_id": user_id,
        "partner_id": partner_id,
        "scopes": record.scopes.iter().collect::<Vec<_>>(),
        "audiences": record.audiences,
        "allowed_cidrs": record.allowed_cidrs,
        "exchange_only": record.exchange_only,
        "predecessor": record.predecessor,
        "status": record.status(now).as_str(),
        "created_at": output::time(record.created_at),
        "expires_at": output::time(record.expires_at),
        "revoked_at": record.revoked_at.map(output::time),
        "last_used_at": key.last_used_at.map(output::time),
        "last_used_ip": key.last_used_ip,
    })
}
