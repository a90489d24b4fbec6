//! `ballast man`: manual pages from the definition of the command line.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::Arguments;
use super::printing::{printed, say};

/// Writes a page for each command into `out`, or prints the one of `ballast`.
pub(super) fn run(out: Option<&Path>) -> ExitCode {
    let mut command = Arguments::command().disable_help_subcommand(true);
    // Gives each its whole name.
    command.build();
    let text = match out {
        Some(directory) => std::fs::create_dir_all(directory)
            .and_then(|()| write(&command, directory))
            .map(|()| format!("The manual pages are in {}.\n", directory.display()))
            .map_err(|error| format!("cannot write to {}: {error}", directory.display())),
        None => page(&command).map_err(|error| format!("cannot write the manual page: {error}")),
    };
    match text {
        Ok(text) => printed(text, ExitCode::SUCCESS),
        Err(error) => {
            say(&error);
            ExitCode::FAILURE
        }
    }
}

/// The page of `command`, and those of its commands.
fn write(command: &Command, directory: &Path) -> io::Result<()> {
    let file = Man::new(command.clone()).get_filename();
    std::fs::write(directory.join(file), page(command)?)?;
    let mut shown = command.get_subcommands().filter(|it| !it.is_hide_set());
    shown.try_for_each(|it| write(it, directory))
}

fn page(command: &Command) -> io::Result<String> {
    let mut page = Vec::new();
    Man::new(command.clone()).render(&mut page)?;
    let page = String::from_utf8(page).map_err(io::Error::other)?;
    Ok(as_laid_out(&page))
}

/// What follows the options is laid out in columns, which must not be filled.
fn as_laid_out(page: &str) -> String {
    let Some((before, details)) = page.split_once(".SH EXTRA\n") else {
        return page.to_owned();
    };
    let end = details.find(".SH ").unwrap_or(details.len());
    let (details, after) = details.split_at(end);
    format!("{before}.SH DETAILS\n.nf\n{details}.fi\n{after}")
}

pub(super) const DETAILS: &str = "\
Examples:
  ballast man | man -l -
  sudo ballast man --out /usr/local/share/man/man1";
