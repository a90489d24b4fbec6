//! `ballast doctor`: whether this machine can do what the configuration asks of it, and what to paste
//! where it cannot.
//!
//! [`facts`] reads what there is, of the kernel, of the files and of a daemon that runs; [`access`] and
//! [`judge`] are what follows from it, and know no file system.

mod access;
mod facts;
mod judge;

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use serde::Serialize;

use self::facts::Facts;
use super::client::Reach;
use super::json;
use super::printing::printed;

/// The whole subcommand: 0 when nothing is wrong, 1 when something is.
pub(super) fn run(reach: &Reach, json: bool) -> ExitCode {
    let facts = Facts::read(reach);
    let diagnosis = Diagnosis::of(&facts);
    let text = match json {
        true => json::lines(&diagnosis),
        false => diagnosis.text(io::stdout().is_terminal()),
    };
    let code = match diagnosis.problems {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    };
    printed(text, code)
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    /// What it is about, in a word.
    topic: &'static str,
    severity: Severity,
    /// How it is.
    now: String,
    /// How it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    wanted: Option<String>,
    /// What goes wrong otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// Commands, or lines of a file, to paste.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fix: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    /// Something does not work, or will not under the load that the file allows.
    Problem,
    /// It works, and could do better.
    Advice,
    Fine,
}

impl Finding {
    fn fine(topic: &'static str, now: impl Into<String>) -> Self {
        Self {
            topic,
            severity: Severity::Fine,
            now: now.into(),
            wanted: None,
            why: None,
            fix: Vec::new(),
        }
    }

    fn problem(topic: &'static str, now: impl Into<String>) -> Self {
        Self {
            severity: Severity::Problem,
            ..Self::fine(topic, now)
        }
    }

    fn advice(topic: &'static str, now: impl Into<String>) -> Self {
        Self {
            severity: Severity::Advice,
            ..Self::fine(topic, now)
        }
    }

    fn wanted(mut self, wanted: impl Into<String>) -> Self {
        self.wanted = Some(wanted.into());
        self
    }

    fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    fn fix(mut self, lines: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.fix.extend(lines.into_iter().map(Into::into));
        self
    }

    /// The kernel setting, now and after the next boot.
    fn sysctl(self, key: &str, value: impl std::fmt::Display) -> Self {
        self.fix([
            format!("sudo sysctl -w {key}='{value}'"),
            format!("echo '{key} = {value}' | sudo tee -a /etc/sysctl.d/99-ballast.conf"),
        ])
    }
}

/// Everything that was found.
#[derive(Debug, Serialize)]
struct Diagnosis {
    problems: usize,
    advice: usize,
    findings: Vec<Finding>,
}

impl Diagnosis {
    fn of(facts: &Facts) -> Self {
        let mut findings = judge::all(facts);
        // What is worst is read first; otherwise the order of the topics stays.
        findings.sort_by_key(|it| it.severity);
        let count = |severity| findings.iter().filter(|it| it.severity == severity).count();
        Self {
            problems: count(Severity::Problem),
            advice: count(Severity::Advice),
            findings,
        }
    }

    fn text(&self, color: bool) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let (mark, paint) = match finding.severity {
                Severity::Problem => ("PROBLEM", "\u{1b}[1;31m"),
                Severity::Advice => ("advice", "\u{1b}[33m"),
                Severity::Fine => ("fine", "\u{1b}[32m"),
            };
            let (paint, plain) = match color {
                true => (paint, "\u{1b}[0m"),
                false => ("", ""),
            };
            let now = wrapped(&finding.now, 22);
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{paint}{mark:<9}{plain}{:<13}{now}", finding.topic);
            let mut part = |what: &str, said: &Option<String>| {
                if let Some(said) = said {
                    let _ = writeln!(text, "{:22}{what:<8}{}", "", wrapped(said, 30));
                }
            };
            part("wanted", &finding.wanted);
            part("why", &finding.why);
            if !finding.fix.is_empty() {
                let _ = writeln!(text, "{:22}fix", "");
            }
            for line in &finding.fix {
                // Not wrapped: it is to be pasted.
                let _ = writeln!(text, "    {line}");
            }
            if finding.severity != Severity::Fine {
                text.push('\n');
            }
        }
        let of = |number: usize, one: &str, more: &str| match number {
            1 => format!("1 {one}"),
            _ => format!("{number} {more}"),
        };
        let _ = writeln!(
            text,
            "{}, {}, {} looked at",
            of(self.problems, "problem", "problems"),
            of(self.advice, "piece of advice", "pieces of advice"),
            of(self.findings.len(), "thing", "things")
        );
        text
    }
}

/// `text` in lines of at most [`COLUMNS`], the later ones indented; the first begins at `indent` already.
fn wrapped(text: &str, indent: usize) -> String {
    if text.contains('\n') {
        // It has been laid out.
        let between = format!("\n{:indent$}", "");
        return text.lines().collect::<Vec<_>>().join(&between);
    }
    let mut out = String::new();
    let mut column = indent;
    for (at, word) in text.split(' ').enumerate() {
        let width = word.chars().count();
        if at > 0 && column + 1 + width > COLUMNS {
            let _ = write!(out, "\n{:indent$}", "");
            column = indent;
        } else if at > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out
}

const COLUMNS: usize = 100;

pub(super) const DETAILS: &str = "\
Severities:
  PROBLEM  something does not work, or will not under the load that the file
           allows
  advice   it works, and could do better
  fine     nothing to do

Exit codes:
  0  no problem; there may be advice
  1  problems
  2  a wrong command line

Examples:
  sudo ballast doctor              for the user that the unit runs it as
  ballast doctor -c ./ballast.toml
  ballast doctor --json | jq '.findings[] | select(.severity == \"problem\")'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_comes_first_and_says_what_to_paste() {
        let finding = Finding::problem("backlog", "128")
            .wanted("4096")
            .why("word ".repeat(40).trim_end())
            .sysctl("net.core.somaxconn", 4096);
        let diagnosis = Diagnosis {
            problems: 1,
            advice: 0,
            findings: vec![finding, Finding::fine("clock", "synchronised")],
        };
        let text = diagnosis.text(false);
        assert!(text.starts_with("PROBLEM  backlog      128\n"), "{text}");
        assert!(text.contains("fix\n    sudo sysctl -w net.core.somaxconn='4096'\n"));
        assert!(text.contains("fine     clock        synchronised\n"));
        assert!(text.ends_with("1 problem, 0 pieces of advice, 2 things looked at\n"));
        let long = text.lines().find(|it| it.chars().count() > COLUMNS);
        assert_eq!(long, None);
    }
}
