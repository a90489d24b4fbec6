//! The other commands of the real binary, as an operator's shell runs them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// How a command answered.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// Whether each of these is somewhere on stdout.
    #[track_caller]
    pub fn shows(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.stdout.contains(part), "{part:?}\nnot in:\n{self:#?}");
        }
    }

    /// Whether it ended with this code.
    #[track_caller]
    pub fn exits_with(&self, code: i32) {
        assert_eq!(self.code, Some(code), "{self:#?}");
    }
}

/// The binary under test: the one that cargo built for the tests, or any other that `BALLAST_BINARY` names.
pub fn binary() -> PathBuf {
    env::var_os("BALLAST_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_ballast").into(), PathBuf::from)
}

/// `ballast`, with these arguments and this file as `-c`; there is no terminal.
pub fn ballast(file: &Path, arguments: &[&str]) -> Said {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(binary())
        .args(arguments)
        .arg("-c")
        .arg(file)
        .env_remove("BALLAST_ADMIN")
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Said {
        code: status.code(),
        stdout: text(stdout),
        stderr: text(stderr),
    }
}
