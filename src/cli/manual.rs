//! `proxbox-bridge completions` and `proxbox-bridge man`: files for packages and shells, made from the command line
//! itself.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, NAME, print};

/// Print a script that completes the command line in a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    proxbox-bridge completions bash > /usr/share/bash-completion/completions/proxbox-bridge\n  \
    proxbox-bridge completions zsh > /usr/share/zsh/vendor-completions/_proxbox-bridge\n  \
    proxbox-bridge completions fish > /usr/share/fish/vendor_completions.d/proxbox-bridge.fish")]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Print the manual page, or write one page for each subcommand.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    proxbox-bridge man | man --local-file -\n  \
    proxbox-bridge man --out /usr/share/man/man1")]
pub struct ManArgs {
    /// Directory to write the pages of all subcommands to, created if it is missing: proxbox-bridge.1,
    /// proxbox-bridge-serve.1 and so on
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints the script.
///
/// # Errors
///
/// An error of standard output.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    print(&String::from_utf8(script)?)
}

/// Prints the page of the program, or writes those of all subcommands.
///
/// # Errors
///
/// A page cannot be written.
pub fn man(args: &ManArgs) -> anyhow::Result<()> {
    // The pages of `help` would repeat all others.
    let command = Cli::command().disable_help_subcommand(true);
    let Some(directory) = &args.out else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        return print(&String::from_utf8(page)?);
    };
    let written = fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(command, directory));
    written.with_context(|| format!("cannot write manual pages to {}", directory.display()))
}
