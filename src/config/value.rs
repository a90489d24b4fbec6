//! Durations and names: text → value, or what is wrong with the text. Addresses are next door, in
//! [`address`](super::address).

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::problem::{Problem, shown};
use super::source::Span;

/// Why a text is not the value it should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) message: String,
    /// What would be right, for the caret.
    pub(super) allowed: Option<String>,
    /// What was probably meant.
    pub(super) help: Option<String>,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            allowed: None,
            help: None,
        }
    }

    pub(super) fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn at(self, span: Span) -> Problem {
        Problem {
            label: self.allowed,
            help: self.help,
            ..Problem::error(self.message).at(span)
        }
    }
}

/// A path as far as its text tells.
pub(super) fn file(key: &str, text: &str) -> Result<PathBuf, Fault> {
    if text.is_empty() || text.contains('\0') || text.ends_with('/') {
        return Err(Fault::new(format!("`{key}` does not name a file"))
            .allowed("allowed: a path, relative to the directory of this file or from \"/\""));
    }
    Ok(PathBuf::from(text))
}

/// A duration as `"2s"`, `"500ms"` or `"1h30m"`, of the lengths in `allowed`.
pub(super) fn duration(
    key: &str,
    text: &str,
    allowed: &RangeInclusive<Duration>,
) -> Result<Duration, Fault> {
    let wrong = |why: &str| {
        Fault::new(format!("`{key}` is \"{}\", {why}", shown(text)))
            .allowed(format!("allowed: {}", span_of(allowed)))
    };
    let bare = text.trim();
    if !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_digit()) && bare != "0" {
        return Err(wrong("which has no unit").help(format!("write \"{bare}s\" for seconds")));
    }
    // humantime reads a capital M as months, which nobody means who types "5M".
    if text.contains('M') {
        return Err(wrong("where M would be months")
            .help("write \"m\" for minutes, \"ms\" for milliseconds"));
    }
    match humantime::parse_duration(text) {
        Ok(duration) if allowed.contains(&duration) => Ok(duration),
        Ok(_) => Err(wrong("which is out of range")),
        Err(_) if text.contains('-') => Err(wrong("which is not a duration")),
        Err(_) => {
            Err(wrong("which is not a duration").help("write it like \"500ms\", \"2s\", \"1h30m\""))
        }
    }
}

/// `"10ms" to "366d"`
pub(super) fn span_of(allowed: &RangeInclusive<Duration>) -> String {
    let from = match *allowed.start() {
        Duration::ZERO => "\"0s\"".to_owned(),
        SHORTEST => return format!("more than \"0s\", at most \"{}\"", written(*allowed.end())),
        from => format!("\"{}\"", written(from)),
    };
    format!("{from} to \"{}\"", written(*allowed.end()))
}

/// A duration as an operator would write it.
pub(crate) fn written(duration: Duration) -> String {
    if duration == LONGEST {
        return "366d".to_owned();
    }
    humantime::format_duration(duration)
        .to_string()
        .replace(' ', "")
}

/// The least that is more than nothing.
pub(super) const SHORTEST: Duration = Duration::from_nanos(1);
/// The longest duration that any key takes: a year, and more than any operator waits.
pub(super) const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Any time but none.
pub(super) const SOME_TIME: RangeInclusive<Duration> = SHORTEST..=LONGEST;
/// The most sessions that anything is asked to hold.
pub(super) const MOST_CONNECTIONS: u32 = 10_000_000;

/// A name as logs, metrics and paths can carry it.
pub(super) fn name(text: &str) -> Result<&str, Fault> {
    let wrong = |why: &str| {
        Fault::new(format!("the name \"{}\" {why}", shown(text))).allowed(format!(
            "allowed: 1 to {MOST_OF_A_NAME} printable characters, no spaces, no \"/\""
        ))
    };
    if text.is_empty() {
        return Err(wrong("is empty"));
    }
    if text.chars().nth(MOST_OF_A_NAME).is_some() {
        return Err(wrong("is too long"));
    }
    let unfit = |c: char| {
        c == '/' || c.is_whitespace() || c.is_control() || (!c.is_ascii() && is_invisible(c))
    };
    match text.chars().find(|&c| unfit(c)) {
        Some(c) => Err(wrong(&format!("contains {c:?}"))),
        None => Ok(text),
    }
}

/// A share such as `"50%"`, among `allowed`.
pub(super) fn percent(key: &str, text: &str, allowed: &RangeInclusive<u8>) -> Result<u8, Fault> {
    let (from, to) = (allowed.start(), allowed.end());
    let wrong = |why: &str| {
        Fault::new(format!("`{key}` is \"{}\", {why}", shown(text)))
            .allowed(format!("allowed: \"{from}%\" to \"{to}%\""))
    };
    let bare = text.trim();
    let Some(digits) = bare.strip_suffix('%').map(str::trim_end) else {
        let fault = wrong("which is not a percentage");
        return Err(match bare.parse::<u8>() {
            Ok(number) if allowed.contains(&number) => fault.help(format!("write \"{number}%\"")),
            Ok(_) | Err(_) => fault,
        });
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong("which is not a whole percentage"));
    }
    match digits.parse() {
        Ok(percent) if allowed.contains(&percent) => Ok(percent),
        Ok(_) | Err(_) => Err(wrong("which is out of range")),
    }
}

/// What Rust itself would not print as it is, such as U+200B: two names that look the same are a trap.
fn is_invisible(c: char) -> bool {
    c.escape_debug().len() > 1
}

const MOST_OF_A_NAME: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANY: RangeInclusive<Duration> = Duration::ZERO..=LONGEST;

    #[test]
    fn durations_are_read_with_their_unit() {
        let read = |text| duration("idle", text, &ANY).unwrap();
        assert_eq!(read("2s"), Duration::from_secs(2));
        assert_eq!(read("500ms"), Duration::from_millis(500));
        assert_eq!(read("1h"), Duration::from_secs(3600));
        assert_eq!(read("1m30s"), Duration::from_secs(90));
        assert_eq!(read("0s"), Duration::ZERO);
    }

    #[test]
    fn a_duration_without_unit_is_refused_with_the_seconds_spelled_out() {
        let fault = duration("idle", "30", &ANY).unwrap_err();
        assert_eq!(fault.help.unwrap(), "write \"30s\" for seconds");
    }

    #[test]
    fn a_capital_m_is_not_taken_for_months() {
        assert!(duration("idle", "5M", &ANY).is_err());
    }

    #[test]
    fn a_duration_out_of_range_says_what_is_allowed() {
        let fault = duration("idle", "0s", &(SHORTEST..=LONGEST)).unwrap_err();
        assert_eq!(
            fault.allowed.unwrap(),
            "allowed: more than \"0s\", at most \"366d\""
        );
        assert!(duration("idle", "367d", &ANY).is_err());
        assert!(duration("idle", "-1s", &ANY).is_err());
        assert!(duration("idle", "", &ANY).is_err());
    }

    #[test]
    fn a_percentage_has_its_sign_and_its_range() {
        let read = |text| percent("max_ejected", text, &(1..=100));
        assert_eq!(read("50%"), Ok(50));
        assert_eq!(read(" 100 % "), Ok(100));
        assert_eq!(read("50").unwrap_err().help.unwrap(), "write \"50%\"");
        for wrong in ["", "%", "0%", "101%", "99999%", "+5%", "5.5%", "half"] {
            let fault = read(wrong).unwrap_err();
            assert_eq!(fault.allowed.unwrap(), "allowed: \"1%\" to \"100%\"");
        }
    }

    #[test]
    fn names_are_what_a_log_line_can_carry() {
        for good in ["web", "app-1", "10.0.0.1:80", "[::1]:80", "größe", "日本"] {
            assert_eq!(name(good), Ok(good));
        }
        for bad in ["", "a b", "a/b", "a\tb", "a\0b", "a\u{200b}b"] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
        assert!(name(&"x".repeat(128)).is_ok());
        assert!(name(&"x".repeat(129)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_duration_in_range_or_a_fault(text in ".{0,40}|[0-9.smhdM -]{0,12}") {
            if let Ok(read) = duration("k", &text, &ANY) {
                prop_assert!(ANY.contains(&read));
            }
        }

        #[test]
        fn a_written_duration_reads_back(millis in 1_u64..30_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(super::duration("k", &written(duration), &ANY), Ok(duration));
        }
    }
}
