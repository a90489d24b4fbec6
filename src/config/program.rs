//! A program that the file names: its absolute path, or a list of that and its arguments. Never a name
//! to be found by `PATH`, which under a service manager is another than in the operator's shell.

use std::path::PathBuf;

use super::decode::Table;
use super::problem::{Need, Problem, Problems, shown};
use super::value::Fault;
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
    problems.need(Need::Program(path.into()), place.clone());
    Some(Program {
        path: (*path).to_owned(),
        args: args.iter().map(|(arg, _)| (*arg).to_owned()).collect(),
    })
}

/// An absolute path under `key`.
pub(super) fn absolute(key: &str, text: &str) -> Result<PathBuf, Fault> {
    let path = PathBuf::from(text);
    match path.is_absolute() && !text.contains('\0') {
        true => Ok(path),
        false => Err(Fault::new(format!(
            "`{key}` is \"{}\", which is no absolute path",
            shown(text)
        ))
        .allowed("allowed: a path that begins with \"/\"")),
    }
}
