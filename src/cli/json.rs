//! What programs read: the data as it is. JSON writes control characters out by itself; those that it may leave as
//! they are, and that a terminal would obey all the same, are written out here, which changes no data.

use std::fmt::Write as _;

use serde::Serialize;

use super::client::is_wild;

/// `document` in a line.
pub(super) fn line(document: &impl Serialize) -> String {
    // Numbers and strings under fixed names always become JSON.
    as_sent(&serde_json::to_string(document).unwrap_or_default())
}

/// `document` in lines that are indented.
pub(super) fn lines(document: &impl Serialize) -> String {
    as_sent(&serde_json::to_string_pretty(document).unwrap_or_default())
}

/// A document that is JSON already.
pub(super) fn as_sent(json: &str) -> String {
    let mut out = String::with_capacity(json.len() + 1);
    for letter in json.chars() {
        match letter {
            // Outside of strings, where nothing else of them may be.
            '\n' | '\r' | '\t' => out.push(letter),
            // All of them are of one UTF-16 unit. Writing to a string cannot fail.
            _ if is_wild(letter) => drop(write!(out, "\\u{:04x}", u32::from(letter))),
            _ => out.push(letter),
        }
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn programs_read_the_data_as_it_is_and_terminals_nothing_to_obey() {
        let document = json!({ "why": "\u{1b}[2J \u{9b}31m \u{7f}\u{202e} größe 日本 \"\\\n" });
        for text in [line(&document), lines(&document)] {
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), document);
            assert!(!text.replace('\n', "").contains(is_wild), "{text:?}");
            assert!(text.contains("größe 日本") && text.ends_with("}\n"));
        }
    }
}
