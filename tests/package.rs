//! What a Debian package is made of is there, and what the program generates for it is of use.
//! `cargo deb` itself is not needed for that.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use toml::Table;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `[package.metadata.deb]`
fn package() -> Table {
    let text = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let all: Table = text.parse().unwrap();
    all["package"]["metadata"]["deb"]
        .as_table()
        .unwrap()
        .clone()
}

/// Source, destination and mode.
fn assets() -> Vec<[String; 3]> {
    let package = package();
    let assets = package["assets"].as_array().unwrap().iter();
    let words = |asset: &toml::Value| {
        let words = asset.as_array().unwrap().iter();
        let words: Vec<_> = words.map(|it| it.as_str().unwrap().to_owned()).collect();
        words.try_into().unwrap()
    };
    assets.map(words).collect()
}

fn ballast(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_ballast"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn every_asset_is_in_the_sources_or_is_made_by_the_build() {
    let build = fs::read_to_string(root().join("config/debian/build")).unwrap();
    for [source, ..] in assets() {
        if source.starts_with("target/") {
            // Up to a pattern, the build names it.
            let made = source.split("/*").next().unwrap();
            assert!(build.contains(made), "{source} is made by nobody");
            continue;
        }
        let path = root().join(&source);
        match source.strip_suffix("/*") {
            Some(folder) => {
                let files = fs::read_dir(root().join(folder)).unwrap();
                assert!(files.count() > 0, "{folder} is empty");
            }
            None => assert!(path.is_file(), "{source} is not there"),
        }
    }
    let package = package();
    for key in ["extended-description-file", "maintainer-scripts"] {
        assert!(
            root().join(package[key].as_str().unwrap()).exists(),
            "{key}"
        );
    }
}

#[test]
fn every_folder_that_ships_is_in_the_package() {
    let assets = assets();
    for entry in fs::read_dir(root().join("config")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let inside = format!("config/{name}");
        let packed = assets
            .iter()
            .any(|[source, ..]| source.starts_with(&inside));
        assert!(packed, "{inside} is in no package");
    }
}

#[test]
fn what_an_operator_edits_is_kept_by_upgrades() {
    let placed: BTreeSet<_> = assets()
        .into_iter()
        .map(|[_, to, _]| format!("/{to}"))
        .collect();
    let package = package();
    let kept = package["conf-files"].as_array().unwrap();
    assert!(!kept.is_empty());
    for file in kept {
        assert!(placed.contains(file.as_str().unwrap()), "{file}");
    }
}

#[test]
fn the_maintainers_scripts_are_programs_that_the_shell_can_read() {
    for name in ["postinst", "prerm", "postrm", "build"] {
        let path = root().join("config/debian").join(name);
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{name} cannot be run");
        let shell = if name == "build" { "bash" } else { "sh" };
        let read = Command::new(shell).arg("-n").arg(&path).output().unwrap();
        assert!(read.status.success() && read.stderr.is_empty(), "{read:?}");
    }
}

#[test]
fn each_command_has_a_manual_page_and_hidden_ones_have_none() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("man1");
    ballast(&["man", "--out", out.to_str().unwrap()]);
    let pages: BTreeSet<String> = fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for page in [
        "ballast.1",
        "ballast-run.1",
        "ballast-check.1",
        "ballast-doctor.1",
    ] {
        assert!(pages.contains(page), "{page} is not in {pages:?}");
    }
    assert!(
        !pages.iter().any(|page| page.contains("runner")),
        "{pages:?}"
    );
    let page = fs::read_to_string(out.join("ballast-doctor.1")).unwrap();
    assert!(page.contains("Exit codes"), "{page}");
    assert_eq!(
        text(&ballast(&["man"])),
        fs::read_to_string(out.join("ballast.1")).unwrap()
    );
}

#[test]
fn man_shows_every_page_without_a_complaint() {
    if !installed("man") {
        return skip("man is not installed");
    }
    let directory = tempfile::tempdir().unwrap();
    ballast(&["man", "--out", directory.path().to_str().unwrap()]);
    for page in fs::read_dir(directory.path()).unwrap() {
        let page = page.unwrap().path();
        let shown = Command::new("man")
            .args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8"])
            .arg(&page)
            .env("MANWIDTH", "80")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let complaints = String::from_utf8_lossy(&shown.stderr);
        assert!(
            shown.status.success() && complaints.is_empty(),
            "{}: {complaints}",
            page.display()
        );
        assert!(
            text(&shown).contains("General Commands Manual"),
            "{}",
            page.display()
        );
    }
}

#[test]
fn bash_completes_a_command_and_its_options() {
    let complete = |words: &str, last: usize| {
        let script = format!(
            "source <({} completions bash); COMP_WORDS=({words}); COMP_CWORD={last}; \
             _ballast ballast \"${{COMP_WORDS[{last}]}}\" ballast; echo \"${{COMPREPLY[@]}}\"",
            env!("CARGO_BIN_EXE_ballast")
        );
        let output = Command::new("bash")
            .args(["--norc", "-c", &script])
            .output()
            .unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
        text(&output).trim().to_owned()
    };
    assert_eq!(complete("ballast doc", 1), "doctor");
    assert_eq!(complete("ballast doctor --js", 2), "--json");
    let all = complete("ballast ''", 1);
    assert!(all.contains("check") && !all.contains("runner"), "{all}");
}

#[test]
fn other_shells_have_completions_too() {
    assert!(text(&ballast(&["completions", "zsh"])).starts_with("#compdef ballast"));
    assert!(text(&ballast(&["completions", "fish"])).contains("complete -c ballast"));
    let unknown = Command::new(env!("CARGO_BIN_EXE_ballast"))
        .args(["completions", "cobol"])
        .output()
        .unwrap();
    assert_eq!(unknown.status.code(), Some(2));
}

fn installed(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    found.is_ok_and(|it| it.status.success())
}

fn skip(why: &str) {
    assert!(
        std::env::var_os("BALLAST_TESTS_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "{why}"
    );
    eprintln!("skipped: {why}");
}
