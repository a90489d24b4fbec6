//! Holds the plan of the house: imports go one way, the pure rooms name nothing impure, and every
//! file says what it is for. It reads the sources as text, so that it needs no tool and sees every
//! target; `#[cfg(test)]` modules at the end of a file are not part of the plan.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A room may import those before it, and itself.
const ORDER: &[&str] = &[
    "model",
    "proxy_protocol",
    "admission",
    "strategy",
    "health",
    "config",
    "api",
    "forecast",
    "discovery",
    "pool",
    "telemetry",
    "confine",
    "unix",
    "reactor",
    "net",
    "runner",
    "check",
    "session",
    "worker",
    "admin",
    "control",
    "cli",
];

/// Rooms that decide and do nothing else: everything they need to know comes in as an argument.
const PURE: &[&str] = &[
    "model",
    "strategy",
    "health",
    "proxy_protocol",
    "admission",
    "config",
    "api",
    "forecast",
    "discovery",
];

/// What reaches for the world: the runtime, sockets, clocks, chance, the log, files.
const IMPURE: &[&str] = &[
    "tokio",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "socket2",
    "rustix",
    "Instant::now",
    "SystemTime",
    "fastrand",
    "tracing",
    "std::fs",
    "std::env",
    "std::thread",
];

/// `config` reads its file, and does nothing else.
const EXCEPTIONS: &[(&str, &str)] = &[("config", "std::fs")];

/// Files that are tests as a whole.
const TEST_FILES: &[&str] = &["tests.rs", "testing.rs", "fuzzing.rs", "contract.rs"];

struct Source {
    path: PathBuf,
    text: String,
    room: String,
    /// How many modules below the crate the file is.
    depth: usize,
}

impl Source {
    /// The code outside comments and tests.
    fn code(&self) -> String {
        // A file of tests, which its module includes under `#[cfg(test)]`.
        if TEST_FILES.iter().any(|name| self.path.ends_with(name)) {
            return String::new();
        }
        let mut modules = self.text.match_indices("#[cfg(test)]\nmod ");
        let written_out = |at: &usize| self.text[*at..].lines().nth(1).unwrap().ends_with('{');
        let end = modules.find_map(|(at, _)| Some(at).filter(written_out));
        self.text[..end.unwrap_or(self.text.len())]
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .map(|line| line.split(" // ").next().unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\n")
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inside: Vec<_> = path
                    .strip_prefix(&root)
                    .unwrap()
                    .with_extension("")
                    .components()
                    .map(|part| part.as_os_str().to_str().unwrap().to_owned())
                    .collect();
                let is_module_root = inside.last().is_some_and(|name| name == "mod");
                found.push(Source {
                    text: fs::read_to_string(&path).unwrap(),
                    depth: inside.len() - usize::from(is_module_root),
                    room: inside[0].clone(),
                    path,
                });
            }
        }
    }
    assert!(found.len() > 10, "the sources are where they were");
    found
}

/// The rooms that a source names, by `crate::room` or by enough `super`s.
fn imports(source: &Source) -> BTreeSet<String> {
    let code = source.code();
    let outside = "super::".repeat(source.depth);
    let mut rooms = BTreeSet::new();
    for prefix in ["crate::", outside.as_str()] {
        for (at, _) in code.match_indices(prefix) {
            let before = code[..at].chars().next_back();
            let part_of_longer = before
                .is_some_and(|character| character.is_alphanumeric() || "_:$".contains(character));
            if part_of_longer {
                continue;
            }
            let rest = &code[at + prefix.len()..];
            if let Some(group) = rest.strip_prefix('{') {
                rooms.extend(heads(group));
            } else {
                rooms.insert(identifier(rest));
            }
        }
    }
    rooms
}

/// The first names of each item of a braced import, up to its closing brace.
fn heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 0_usize;
    let mut item = String::new();
    for character in group.chars() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(identifier(std::mem::take(&mut item).trim())),
            _ if depth == 0 => item.push(character),
            _ => {}
        }
    }
    heads.push(identifier(item.trim()));
    heads.retain(|head| !head.is_empty());
    heads
}

fn identifier(text: &str) -> String {
    text.chars()
        .take_while(|character| character.is_alphanumeric() || *character == '_')
        .collect()
}

fn rank(room: &str) -> Option<usize> {
    ORDER.iter().position(|known| *known == room)
}

#[test]
fn imports_go_one_way() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(own) = rank(&source.room) else {
            assert!(
                ["lib", "main", "fuzzing"].contains(&source.room.as_str()),
                "{} is in no room of the plan",
                source.path.display()
            );
            continue;
        };
        for room in imports(&source) {
            let Some(other) = rank(&room) else { continue };
            // The admin API asks control by messages, and reaches for nothing that serves sessions.
            let to_sessions = source.room == "admin"
                && !["model", "config", "api", "telemetry", "unix", "admin"]
                    .contains(&room.as_str());
            if other > own || to_sessions {
                wrong.push(format!("{} imports {room}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pure_rooms_name_nothing_impure() {
    let mut wrong = Vec::new();
    for source in sources() {
        if !PURE.contains(&source.room.as_str()) {
            continue;
        }
        let code = source.code();
        for word in IMPURE {
            let excepted = EXCEPTIONS.contains(&(source.room.as_str(), word));
            if !excepted && code.contains(word) {
                wrong.push(format!("{} names {word}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_opens_by_saying_what_it_is_for() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.path)
        .collect();
    assert!(silent.is_empty(), "{silent:#?}");
}

/// The names of the fields of every line that a piece of code logs at level info or above.
fn logged_fields(code: &str) -> BTreeSet<String> {
    let macros = ["tracing::info!(", "tracing::warn!(", "tracing::error!("];
    let calls = macros.iter().flat_map(|call| {
        let found = code.match_indices(call);
        found.map(|(at, call)| &code[at + call.len()..])
    });
    calls
        .flat_map(arguments)
        .filter_map(|it| field(&it))
        .collect()
}

/// The arguments of a call, up to its closing parenthesis, without what is within quotes.
fn arguments(call: &str) -> Vec<String> {
    let mut arguments = vec![String::new()];
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for character in call.chars() {
        if quoted {
            quoted = escaped || character != '"';
            escaped = character == '\\' && !escaped;
            continue;
        }
        match character {
            '"' => quoted = true,
            ')' | ']' | '}' if depth == 0 => break,
            ')' | ']' | '}' => depth -= 1,
            '(' | '[' | '{' if depth > 0 => depth += 1,
            ',' if depth == 0 => arguments.push(String::new()),
            _ if depth == 0 => {
                arguments.last_mut().unwrap().push(character);
                depth = usize::from("([{".contains(character));
            }
            _ => {}
        }
    }
    arguments
}

/// `x`, `%x`, `?x` or `x = …`.
fn field(argument: &str) -> Option<String> {
    let argument = argument.trim().trim_start_matches(['%', '?']);
    let name = identifier(argument);
    let rest = argument[name.len()..].trim_start();
    (!name.is_empty() && (rest.is_empty() || rest.starts_with('='))).then_some(name)
}

#[test]
fn every_field_of_a_log_line_is_in_the_index_template() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let template = fs::read_to_string(root.join("config/logging/elasticsearch-template.json"));
    let template: serde_json::Value = serde_json::from_str(&template.unwrap()).unwrap();
    let known = &template["template"]["mappings"]["properties"];
    let mut seen = 0;
    let mut missing = BTreeSet::new();
    // The commands write no log.
    for source in sources().iter().filter(|it| it.room != "cli") {
        for field in logged_fields(&source.code()) {
            seen += 1;
            if known.get(&field).is_none() {
                missing.insert(format!("{field} of {}", source.path.display()));
            }
        }
    }
    assert!(seen > 100, "the lines are where they were");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_reader_of_log_lines_sees_every_form() {
    let code = r#"tracing::warn!(%a, ?b, c, d = f(x, y), e = "z, \" zz", "message {x}, {}", g());
        tracing::debug!(not = 1, "this");"#;
    let seen: Vec<_> = logged_fields(code).into_iter().collect();
    assert_eq!(seen, ["a", "b", "c", "d", "e"]);
}

#[test]
fn the_reader_of_imports_sees_every_form() {
    let source = |text: &str, depth| Source {
        path: PathBuf::new(),
        text: text.to_owned(),
        room: "pool".to_owned(),
        depth,
    };
    let seen = |text, depth| {
        imports(&source(text, depth))
            .into_iter()
            .collect::<Vec<_>>()
    };
    assert_eq!(seen("use crate::model::Backend;", 1), ["model"]);
    assert_eq!(
        seen("use crate::{config::{self, X}, net, session::run};", 1),
        ["config", "net", "session"]
    );
    assert_eq!(seen("fn f() -> crate::worker::Id { }", 1), ["worker"]);
    assert_eq!(seen("use super::control;", 1), ["control"]);
    assert_eq!(seen("use super::super::control;", 2), ["control"]);
    assert_eq!(seen("use super::lease;", 2), Vec::<String>::new());
    assert_eq!(
        seen("// crate::cli\n/// [`crate::cli`]", 1),
        Vec::<String>::new()
    );
    assert_eq!(
        seen("#[cfg(test)]\nmod tests {\nuse crate::cli;\n}", 1),
        Vec::<String>::new()
    );
    assert_eq!(
        seen("#[cfg(test)]\nmod testing;\nuse crate::net;", 1),
        ["net"]
    );
}
