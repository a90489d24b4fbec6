//! Hunts for inputs that a parser does not survive. Of tests only; it knows no parser.
//!
//! Inputs begin as the files of `tests/fuzz/TARGET/` and what a test adds, and are changed at random: bits, numbers,
//! words of the target's language, pieces of each other. One that makes the parser answer as none has before is
//! kept and changed further, so that the hunt goes deeper with each answer that it finds. It is the same hunt each
//! time, short in a run of all tests, and as long as wanted by hand:
//!
//! ```sh
//! BALLAST_FUZZ_CASES=2000000 BALLAST_FUZZ_SEED=7 cargo test --lib hunted
//! BALLAST_FUZZ_SECONDS=300 cargo test --lib hunted -- --nocapture
//! ```
//!
//! What makes a parser panic is written into the folder of its target, so that it is tried first from then on.
//! With `BALLAST_FUZZ_KEEP` in the environment the smallest input for each answer is written there, too.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use xxhash_rust::xxh3::xxh3_64;

/// Inputs that are kept to be changed further.
const MOST_KEPT: usize = 2_000;
/// Bytes of an input.
const LONGEST: usize = 32 * 1024;
/// Bytes of a kept file, and how many of them there are.
const SMALL: usize = 2 * 1024;
const MOST_FILES: usize = 60;
/// No parser may take so long, on a machine that does much else.
const TOO_LONG: Duration = Duration::from_secs(5);

/// What to hunt with.
pub(crate) struct Hunt<'a> {
    /// The folder of `tests/fuzz/`.
    pub(crate) target: &'a str,
    /// Good inputs, besides those of the folder.
    pub(crate) seeds: Vec<Vec<u8>>,
    /// What its language is made of.
    pub(crate) words: &'a [&'a [u8]],
    /// How many inputs a run of all tests has time for.
    pub(crate) cases: u64,
}

impl Hunt<'_> {
    /// Has `judge` answer for many inputs: it panics when something is wrong, and else says in words what became
    /// of the input. Digits in them do not matter.
    pub(crate) fn run(self, judge: impl Fn(&[u8]) -> String) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
        let folder = folder.join(self.target);
        let judged = |input: &[u8]| {
            let began = Instant::now();
            let answer = catch_unwind(AssertUnwindSafe(|| judge(input)));
            let took = began.elapsed();
            match answer {
                Ok(answer) if took < TOO_LONG => without_digits(&answer),
                Ok(_) => {
                    let file = keep(&folder, "slow", input);
                    panic!("{took:?} for {}", file.display());
                }
                Err(panic) => {
                    eprintln!("found: {}", keep(&folder, "found", input).display());
                    resume_unwind(panic)
                }
            }
        };
        // The smallest input for each answer.
        let mut answers = BTreeMap::<String, Vec<u8>>::new();
        let mut pool = Vec::new();
        for seed in files(&folder).into_iter().chain(self.seeds) {
            answers.entry(judged(&seed)).or_insert_with(|| seed.clone());
            pool.push(seed);
        }
        assert!(!pool.is_empty(), "no corpus in {}", folder.display());
        let mut rng = Rng::with_seed(number("BALLAST_FUZZ_SEED").unwrap_or(1));
        let seconds = number("BALLAST_FUZZ_SECONDS");
        let end = seconds.map(|it| Instant::now() + Duration::from_secs(it));
        let cases = number("BALLAST_FUZZ_CASES").unwrap_or(end.map_or(self.cases, |_| u64::MAX));
        let mut tried = 0;
        while tried < cases && end.is_none_or(|end| Instant::now() < end) {
            tried += 1;
            let mut input = pool[rng.usize(..pool.len())].clone();
            for _ in 0..rng.usize(1..6) {
                change(&mut input, &pool, self.words, &mut rng);
            }
            input.truncate(LONGEST);
            let answer = judged(&input);
            let known = answers.get(&answer);
            if known.is_none_or(|known| input.len() < known.len()) {
                if pool.len() < MOST_KEPT {
                    pool.push(input.clone());
                }
                answers.insert(answer, input);
            }
        }
        println!(
            "{}: {} different answers to {tried} inputs",
            self.target,
            answers.len()
        );
        if env::var_os("BALLAST_FUZZ_KEEP").is_some() {
            let mut found: Vec<_> = answers
                .into_values()
                .filter(|it| it.len() <= SMALL)
                .collect();
            rng.shuffle(&mut found);
            for input in found.iter().take(MOST_FILES) {
                keep(&folder, "answer", input);
            }
        }
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

fn without_digits(answer: &str) -> String {
    answer.replace(|it: char| it.is_ascii_digit(), "")
}

/// In the order of their names, so that each hunt is the same.
fn files(folder: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|it| it.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|it| fs::read(it).unwrap()).collect()
}

fn keep(folder: &Path, kind: &str, input: &[u8]) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    let file = folder.join(format!("{kind}-{:016x}", xxh3_64(input)));
    fs::write(&file, input).unwrap();
    file
}

/// One change. An empty input grows.
fn change(input: &mut Vec<u8>, pool: &[Vec<u8>], words: &[&[u8]], rng: &mut Rng) {
    const NUMBERS: [&str; 12] = [
        "0",
        "1",
        "-1",
        "7",
        "65535",
        "65536",
        "4294967296",
        "9223372036854775807",
        "18446744073709551616",
        "1e309",
        "0.1",
        "",
    ];
    const BYTES: [u8; 12] = [
        0, 1, 0x7f, 0x80, 0xff, b'\n', b'\r', b'"', b'\\', b' ', b'%', b'#',
    ];
    let at = rng.usize(..=input.len());
    let some = |rng: &mut Rng, input: &[u8]| at + rng.usize(..=(input.len() - at).min(40));
    match rng.u8(..12) {
        0 if at < input.len() => input[at] ^= 1 << rng.u8(..8),
        1 if at < input.len() => input[at] = BYTES[rng.usize(..BYTES.len())],
        2 => drop(input.drain(at..some(rng, input))),
        3 => {
            let piece = input[at..some(rng, input)].to_vec();
            insert(input, rng.usize(..=input.len()), &piece);
        }
        4 => {
            let noise: Vec<_> = (0..rng.usize(1..6)).map(|_| rng.u8(..)).collect();
            insert(input, at, &noise);
        }
        5 | 6 if !words.is_empty() => insert(input, at, words[rng.usize(..words.len())]),
        7 if !words.is_empty() => {
            let word = words[rng.usize(..words.len())];
            let end = input.len().min(at + word.len());
            input.splice(at..end, word.iter().copied());
        }
        8 => {
            // The beginning of this one, and the end of another.
            let other = &pool[rng.usize(..pool.len())];
            input.truncate(at);
            input.extend(&other[rng.usize(..=other.len())..]);
        }
        9 => input.truncate(at),
        10 => {
            // A whole line goes, comes twice, or comes from another.
            let (from, to) = line(input, at);
            match rng.u8(..3) {
                0 => drop(input.drain(from..to)),
                1 => {
                    let twice = input[from..to].to_vec();
                    insert(input, to, &twice);
                }
                _ => {
                    let other = &pool[rng.usize(..pool.len())];
                    let (begin, end) = line(other, rng.usize(..=other.len()));
                    insert(input, from, &other[begin..end]);
                }
            }
        }
        11 => {
            // A number becomes another.
            let digit = |it: &u8| it.is_ascii_digit();
            if let Some(from) = input[at..].iter().position(digit).map(|it| at + it) {
                let length = input[from..].iter().take_while(|it| digit(it)).count();
                let number = NUMBERS[rng.usize(..NUMBERS.len())];
                input.splice(from..from + length, number.bytes());
            }
        }
        _ => input.push(rng.u8(..)),
    }
}

fn insert(input: &mut Vec<u8>, at: usize, piece: &[u8]) {
    input.splice(at..at, piece.iter().copied());
}

/// The line around `at`, its end included.
fn line(input: &[u8], at: usize) -> (usize, usize) {
    let is_end = |it: &u8| *it == b'\n';
    let from = input[..at].iter().rposition(is_end).map_or(0, |it| it + 1);
    let rest = input[at..].iter().position(is_end);
    (from, rest.map_or(input.len(), |it| at + it + 1))
}
