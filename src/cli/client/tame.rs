//! What a daemon sends, with nothing in it that a terminal would obey: names, reasons and words of others pass
//! through it, from servers, peers and files. The one place that sees all of it before a command prints any as text;
//! what programs get is the data as it is, see [`json`](crate::cli::json).

use serde::de::DeserializeOwned;
use serde_json::Value;

/// The document in `body`. Where its texts have characters that control a terminal or turn its writing
/// around, these are written out: `\u{1b}`.
///
/// # Errors
/// That it is no such document.
pub(super) fn document<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    if is_tame(body) {
        return serde_json::from_slice(body);
    }
    let mut document: Value = serde_json::from_slice(body)?;
    tame(&mut document);
    serde_json::from_value(document)
}

/// Whether no text in that JSON can have such a character. Nearly always, and a view may be megabytes.
fn is_tame(body: &[u8]) -> bool {
    let mut bytes = body.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            // What comes after it has nothing more to say.
            b'\\' if !matches!(bytes.next(), Some(b'"' | b'\\' | b'/')) => return false,
            0x7f.. => return false,
            _ => {}
        }
    }
    true
}

fn tame(value: &mut Value) {
    match value {
        Value::String(text) if text.contains(is_wild) => *text = written_out(text),
        Value::Array(all) => all.iter_mut().for_each(tame),
        Value::Object(fields) => fields.values_mut().for_each(tame),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Lines with nothing else in them that a terminal would obey.
pub(in crate::cli) fn lines_for_a_terminal(text: &str) -> String {
    let lines = text.split('\n').map(written_out);
    lines.collect::<Vec<_>>().join("\n")
}

fn written_out(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        match is_wild(letter) {
            true => out.extend(letter.escape_default()),
            false => out.push(letter),
        }
    }
    out
}

/// Control characters, and those by which what is read is not what is there (Unicode TR 36, 3.2).
pub(in crate::cli) fn is_wild(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(document: &Value) -> Value {
        super::document(document.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn whatever_a_terminal_obeys_is_written_out() {
        for (sent, shown) in [
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            ("two\r\nlines", "two\\r\\nlines"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{7f}", "\\u{7f}"),
            ("\u{202e}lmx", "\\u{202e}lmx"),
        ] {
            let within = |text: &str| json!({ "all": [{ "why": text, "count": 3 }] });
            assert_eq!(read(&within(sent)), within(shown));
        }
    }

    #[test]
    fn what_is_harmless_stays_as_it_is() {
        for text in ["größe 日本", "say \"hi\" to C:\\dir", "a/b"] {
            let document = json!({ "why": text, "share": 0.25, "most": u64::MAX, "none": null });
            assert_eq!(read(&document), document);
        }
        assert!(document::<Value>(b"{\"a\": \"\\").is_err());
    }
}
