//! Programs that tests use and a machine may lack.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Set by `tests/run`, which has installed everything: then a missing program is a failure.
const REQUIRE_ALL: &str = "BALLAST_TESTS_REQUIRE_ALL";

/// Whether all these programs are here. When one is not, the calling test is to return at once.
pub fn installed(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs
        .iter()
        .filter(|program| find(program).is_none())
        .collect();
    if missing.is_empty() {
        return true;
    }
    assert!(
        env::var(REQUIRE_ALL).is_err(),
        "not installed, though {REQUIRE_ALL} is set: {missing:?}"
    );
    eprintln!("skipped: {missing:?} not installed");
    false
}

/// Where a program of PostgreSQL is; Debian keeps them out of the path.
pub fn postgres_program(name: &str) -> PathBuf {
    find_postgres(name).unwrap_or_else(|| PathBuf::from(name))
}

fn find(program: &str) -> Option<PathBuf> {
    let paths = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&paths)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
        .or_else(|| find_postgres(program))
}

fn find_postgres(program: &str) -> Option<PathBuf> {
    fs::read_dir(Path::new("/usr/lib/postgresql"))
        .ok()?
        .filter_map(Result::ok)
        .map(|version| version.path().join("bin").join(program))
        .find(|path| path.is_file())
}
