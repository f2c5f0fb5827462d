//! `framebus completions` and `framebus man`: generated from the command line.

use crate::cli::Cli;
use crate::out;
use clap::CommandFactory;
use framebus_service::{Failure, Kind};
use std::path::PathBuf;
use std::process::ExitCode;

/// Print the completion script of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  framebus completions bash > ~/.local/share/bash-completion/completions/framebus
  framebus completions zsh  > \"${fpath[1]}/_framebus\"
  framebus completions fish > ~/.config/fish/completions/framebus.fish")]
pub(crate) struct Args {
    /// The shell.
    shell: clap_complete::Shell,
}

/// Print the manual page, or write one per subcommand into a folder
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  framebus man | man -l -
  framebus man /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Folder for all pages; without it the first page is printed.
    folder: Option<PathBuf>,
}

/// Runs `completions`.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "framebus", &mut script);
    out::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `man`.
pub(crate) fn man(args: &ManArgs) -> Result<ExitCode, Failure> {
    let unwritten = |error: std::io::Error, what: String| Failure {
        kind: Kind::Unavailable,
        error: anyhow::Error::new(error).context(format!("cannot write {what}")),
    };
    if let Some(folder) = &args.folder {
        let what = || format!("manual pages into {}", folder.display());
        std::fs::create_dir_all(folder).map_err(|error| unwritten(error, what()))?;
        clap_mangen::generate_to(Cli::command(), folder)
            .map_err(|error| unwritten(error, what()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command())
        .render(&mut page)
        .map_err(|error| unwritten(error, "the manual page".to_owned()))?;
    out::print(&String::from_utf8_lossy(&page))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_subcommand_gets_a_page() {
        let folder = tempfile::tempdir().expect("temp dir");
        man(&ManArgs { folder: Some(folder.path().join("man1")) }).expect("written");
        for name in ["framebus.1", "framebus-up.1", "framebus-detect.1", "framebus-models-fetch.1"]
        {
            assert!(folder.path().join("man1").join(name).is_file(), "{name}");
        }
    }
}
