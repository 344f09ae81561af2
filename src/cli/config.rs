//! `keyward config`: what the configuration says, and a template for one.

use clap::Subcommand;

use crate::account::declared::check_client;
use crate::app::metadata;
use crate::config::{Sources, dump, load, reference, template};
use crate::http::pages::chrome::Branding;

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

pub fn run(command: &ConfigCommand, sources: &Sources) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Check => {
            let loaded = load(sources.clone())?;
            let ours = metadata(&loaded.config);
            for client in &loaded.config.clients {
                check_client(&ours, &client.client_id, &client.metadata, client.client_secret.is_some())?;
            }
            Branding::new(&loaded.config)?;
            for warning in &loaded.warnings {
                eprintln!("keyward: warning: {warning}");
            }
            println!("the configuration is valid");
        }
        ConfigCommand::Dump => print!("{}", dump(sources)?),
        ConfigCommand::Generate => print!("{}", template()),
        ConfigCommand::Reference => print!("{}", reference()),
    }
    Ok(())
}
