//! A program that the file names: its absolute path, or a list of that and its arguments. Never a name
//! to be found by `PATH`, which under a service manager is another than in the operator's shell.

use super::alert::absolute;
use super::decode::Table;
use super::problem::{Problem, Problems};
use crate::health::Program;

/// `key = "/path"`, or `key = ["/path", "argument", …]`
pub(super) fn program(
    table: &Table<'_>,
    key: &'static str,
    problems: &mut Problems,
) -> Option<Program> {
    let words = table.texts(key, problems)?;
    let Some(((path, place), args)) = words.split_first() else {
        if let Some(span) = table.span_of(key) {
            problems.add(
                Problem::error(format!("`{key}` names no program"))
                    .at(span)
                    .label("a path, or a list of a path and arguments"),
            );
        }
        return None;
    };
    if let Some((_, place)) = args.iter().find(|(arg, _)| arg.contains('\0')) {
        problems.add(
            Problem::error(format!("`{key}` contains a NUL"))
                .at(place.clone())
                .label("no program can be given one"),
        );
    }
    absolute(key, path)
        .map_err(|fault| problems.add(fault.at(place.clone())))
        .ok()?;
    Some(Program {
        path: (*path).to_owned(),
        args: args.iter().map(|(arg, _)| (*arg).to_owned()).collect(),
    })
}
