//! `keyward completions`: what a shell completes. Needs no configuration.

use clap::CommandFactory;
use clap_complete::Shell;

use super::output::{self, Format};

/// Where each shell looks for them.
pub const EXAMPLES: &str = "\
Examples:
  keyward completions bash > /etc/bash_completion.d/keyward
  keyward completions zsh  > ~/.zfunc/_keyward          (a directory of $fpath)
  keyward completions fish > ~/.config/fish/completions/keyward.fish";

pub fn run<C: CommandFactory>(shell: Shell, format: Format) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut C::command(), "keyward", &mut script);
    output::text(format, "completions", &String::from_utf8_lossy(&script));
}
