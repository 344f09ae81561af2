//! `keyward config`: what the configuration says, and a template for one.

use clap::Subcommand;
use serde_json::json;

use super::logging;
use super::output::{self, Format};
use crate::account::declared::{check_client, check_passwords};
use crate::app::metadata;
use crate::config::{Sources, dump, load, reference, template};
use crate::http::pages::chrome::Branding;
use crate::http::serve::tls;
use crate::keys;

#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Say what is wrong with the configuration, if anything.
    Check,
    /// Print the merged configuration, secrets redacted.
    Dump,
    /// Print a commented template.
    Generate,
    /// Print the reference page of all settings.
    Reference,
}

pub fn run(command: &ConfigCommand, sources: &Sources, format: Format) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Check => {
            let mut loaded = load(sources.clone())?;
            let ours = metadata(&loaded.config);
            for client in &loaded.config.clients {
                check_client(&ours, &client.client_id, &client.metadata, client.client_secret.is_some())?;
            }
            check_passwords(&loaded.config)?;
            Branding::new(&loaded.config)?;
            keys::check(&loaded.config.key_source)?;
            logging::filter(&loaded.config)?;
            if let Some(files) = &loaded.config.tls {
                loaded.warnings.extend(tls::load(files)?.warnings);
            }
            for warning in &loaded.warnings {
                eprintln!("keyward: warning: {warning}");
            }
            match format {
                // The warnings stand on standard error already.
                Format::Table => output::object(format, &json!({ "valid": true, "warnings": loaded.warnings.len() })),
                Format::Json => output::object(format, &json!({ "valid": true, "warnings": loaded.warnings })),
            }
        }
        ConfigCommand::Dump => {
            let merged = dump(sources)?;
            match format {
                Format::Table => output::line(merged.trim_end()),
                Format::Json => output::object(format, &serde_json::to_value(toml::from_str::<toml::Table>(&merged)?)?),
            }
        }
        ConfigCommand::Generate => output::text(format, "template", &template()),
        ConfigCommand::Reference => output::text(format, "reference", &reference()),
    }
    Ok(())
}
