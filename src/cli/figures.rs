//! Numbers, times and names as commands print them: short, of one width, and never more precise than
//! they are.

use std::time::{Duration, SystemTime};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// `7`, `12,345`, `1.2M`
pub(super) fn count(number: u64) -> String {
    match number {
        0..=999_999 => grouped(number),
        _ => scaled(number as f64),
    }
}

/// `1,234,567`
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Something per second: `0`, `0.3`, `42`, `1.2k`
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate < 0.05 => "0".into(),
        rate if rate < 9.95 => format!("{rate:.1}"),
        rate => scaled(rate),
    }
}

/// `999`, `1.2k`, `35M`: at most four characters.
pub(super) fn scaled(number: f64) -> String {
    let mut number = number;
    for unit in ["", "k", "M", "G", "T", "P"] {
        if number < 9.95 && !unit.is_empty() {
            return format!("{number:.1}{unit}");
        }
        if number < 999.5 {
            return format!("{number:.0}{unit}");
        }
        number /= 1000.0;
    }
    format!("{:.0}E", number)
}

/// `3d 4h`, `2m 10s`, `12s`, `0.4s`: two units at most.
pub(super) fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    let two = |large: u64, of: &str, small: u64, per: &str| match small {
        0 => format!("{large}{of}"),
        _ => format!("{large}{of} {small}{per}"),
    };
    match seconds {
        0..=9 if time.subsec_millis() >= 50 || seconds == 0 => {
            format!("{:.1}s", time.as_secs_f64())
        }
        0..60 => format!("{seconds}s"),
        60..3600 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        86_400.. => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// `710.0 ms`: what is compared is of one unit.
pub(super) fn tenths(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

/// How long `then` is past at `now`, both in RFC 3339; `None` if one of them is not.
pub(super) fn ago(then: &str, now: &str) -> Option<Duration> {
    let moment = |text: &str| -> Option<SystemTime> { humantime::parse_rfc3339(text).ok() };
    Some(
        moment(now)?
            .duration_since(moment(then)?)
            .unwrap_or_default(),
    )
}

/// `2026-11-21 12:00:03Z`, of what is in RFC 3339.
pub(super) fn moment(at: &str) -> String {
    match at.get(..19) {
        Some(seconds) => seconds.replace('T', " ") + "Z",
        None => at.to_owned(),
    }
}

/// A time as operators write it: `30s`, `5m`, `2h`.
pub(super) fn as_written(text: &str) -> Result<Duration, &'static str> {
    humantime::parse_duration(text).map_err(|_| "expected a time, such as 30s, 5m or 2h")
}

/// Whether the terminal shows more than ASCII.
pub(super) fn speaks_unicode() -> bool {
    // The first of these that is set decides, as setlocale(3) has it.
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.is_empty())
        .unwrap_or_default()
        .to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// `1 backend`, `3 backends`
pub(super) fn of(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{} {what}s", grouped(number)),
    }
}

/// A sentence in lines of at most so many columns, broken between words.
pub(super) fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last().map_or(0, |line| width(line));
        match lines.last_mut() {
            Some(last) if line == 0 || line + 1 + width(word) <= columns => {
                if line > 0 {
                    last.push(' ');
                }
                last.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// How many columns a text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// A text in at most so many columns: what does not fit is left out of its middle, because names
/// differ at their ends.
pub(super) fn fitted(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(1);
    let (front, back) = (room - room / 2, room / 2);
    let taken = |columns: usize, letters: &mut dyn Iterator<Item = char>| -> Vec<char> {
        let mut left = columns;
        letters
            .take_while(|letter| {
                let wide = letter.width().unwrap_or(0);
                let fits = wide <= left;
                left = left.saturating_sub(wide);
                fits
            })
            .collect()
    };
    let head = taken(front, &mut text.chars());
    let tail = taken(back, &mut text.chars().rev());
    let ellipsis = (columns > 0).then_some('…');
    head.into_iter()
        .chain(ellipsis)
        .chain(tail.into_iter().rev())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_short() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1.2M")] {
            assert_eq!(count(number), text);
        }
        for (number, text) in [
            (0.01, "0"),
            (0.25, "0.2"),
            (9.96, "10"),
            (999.6, "1.0k"),
            (35_400_000.0, "35M"),
        ] {
            assert_eq!(rate(number), text);
        }
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(of(1, "client"), "1 client");
        assert_eq!(of(1200, "client"), "1,200 clients");
    }

    #[test]
    fn times_have_two_units_at_most() {
        for (milliseconds, text) in [
            (0, "0.0s"),
            (420, "0.4s"),
            (5000, "5s"),
            (12_400, "12s"),
            (130_000, "2m 10s"),
            (3_600_000, "1h"),
            (273_600_000, "3d 4h"),
        ] {
            assert_eq!(time(Duration::from_millis(milliseconds)), text);
        }
        let (then, now) = ("2026-11-21T12:00:00.000Z", "2026-11-21T12:00:01.500Z");
        assert_eq!(ago(then, now), Some(Duration::from_millis(1500)));
        assert_eq!(ago(now, then), Some(Duration::ZERO));
        assert_eq!(ago("yesterday", now), None);
    }

    #[test]
    fn a_name_keeps_its_ends() {
        assert_eq!(fitted("app-1", 5), "app-1");
        assert_eq!(fitted("payments-primary-eu-1", 11), "payme…-eu-1");
        assert_eq!(fitted("日本語日本語", 5), "日…語");
    }

    proptest! {
        #[test]
        fn nothing_is_wider_than_its_column(text in "\\PC{0,40}", columns in 0_usize..30) {
            prop_assert!(width(&fitted(&text, columns)) <= columns);
        }

        #[test]
        fn a_rate_fits_five_columns(number in 0.0..1e18_f64) {
            prop_assert!(rate(number).len() <= 5);
        }
    }
}
