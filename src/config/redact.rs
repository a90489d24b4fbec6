//! The text of a file without what is secret in it, for whoever may read how the daemon is configured and
//! no more than that.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::source::Span;

/// `text` with every value that may hold a secret replaced by `HIDDEN`. A text that is no TOML is hidden as
/// a whole.
pub fn without_secrets(text: &str) -> String {
    let Ok(tree) = DeTable::parse(text) else {
        return HIDDEN.to_owned();
    };
    let mut secrets = Vec::new();
    search(tree.get_ref(), &mut secrets);
    secrets.sort_by_key(|span| std::cmp::Reverse(span.start));
    let mut shown = text.to_owned();
    for span in secrets {
        shown.replace_range(span, HIDDEN);
    }
    shown
}

fn search(table: &DeTable<'_>, secrets: &mut Vec<Span>) {
    for (key, value) in table {
        let key = key.get_ref().as_ref();
        if SECRET.contains(&key) {
            hide(value, secrets);
        } else if PROGRAMS.contains(&key) {
            let words = value.get_ref().as_array().into_iter();
            let arguments = words.flat_map(|it| it.iter().skip(1));
            arguments.for_each(|it| hide(it, secrets));
        } else {
            go_on(value, secrets);
        }
    }
}

fn go_on(value: &Spanned<DeValue<'_>>, secrets: &mut Vec<Span>) {
    if let Some(table) = value.get_ref().as_table() {
        search(table, secrets);
    }
    for item in value
        .get_ref()
        .as_array()
        .into_iter()
        .flat_map(|it| it.iter())
    {
        go_on(item, secrets);
    }
}

/// Names and brackets stay, so that it is still to be seen what is there.
fn hide(value: &Spanned<DeValue<'_>>, secrets: &mut Vec<Span>) {
    if let Some(table) = value.get_ref().as_table() {
        table.iter().for_each(|(_, value)| hide(value, secrets));
    } else if let Some(items) = value.get_ref().as_array() {
        items.iter().for_each(|item| hide(item, secrets));
    } else {
        secrets.push(value.span());
    }
}

/// What stands for a secret.
const HIDDEN: &str = "\"…\"";
/// Keys that may hold one: URLs of webhooks have tokens in them, and what is sent to a server a password.
const SECRET: &[&str] = &["password", "webhook", "headers", "send"];
/// Keys of programs, whose arguments may hold one.
const PROGRAMS: &[&str] = &["command", "exec"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_are_hidden_and_everything_else_stays() {
        let text = "# a comment\n[[service]]\nname = \"web\"\n[service.health]\npassword = 'hush'\n\
                    send = \"AUTH hush\\r\\n\"\nuser = \"u\"\n[[alert]]\nheaders = { X = \"hush\", Y = \"hush\" }\n\
                    webhook = \"https://h/hush\"\n[alert.headers]\nZ = \"hush\"\n";
        // The header twice is one time too many, for the first half only.
        let text = text.replace("headers = { X = \"hush\", Y = \"hush\" }\n", "");
        let shown = without_secrets(&text);
        assert!(!shown.contains("hush"), "{shown}");
        assert_eq!(shown.matches(HIDDEN).count(), 4, "{shown}");
        assert!(shown.starts_with("# a comment\n[[service]]\nname = \"web\"\n"));
        assert!(shown.contains("user = \"u\"\n"));
        let inline = without_secrets("[[alert]]\nheaders = { X = \"hush\", Y = \"hush\" }\n");
        assert_eq!(inline, "[[alert]]\nheaders = { X = \"…\", Y = \"…\" }\n");
        assert_eq!(without_secrets("password = "), HIDDEN);
        let programs =
            "[x]\ncommand = [\"/bin/check\", \"-p\", \"hush\"]\n[[alert]]\nexec = \"/bin/tell\"\n";
        let shown =
            "[x]\ncommand = [\"/bin/check\", \"…\", \"…\"]\n[[alert]]\nexec = \"/bin/tell\"\n";
        assert_eq!(without_secrets(programs), shown);
    }

    proptest! {
        #[test]
        fn no_secret_is_ever_shown(
            key in prop::sample::select(SECRET.to_vec()),
            secret in "hush[a-z]{0,8}",
            before in "[a-z]{1,8}",
        ) {
            for text in [
                format!("x.y = {{ {key} = '{secret}' }}"),
                format!("x_{before} = 1\n{key} = '''{secret}'''"),
                format!("[[x]]\n[x.{before}]\n'{key}' = [\"{secret}\"]"),
            ] {
                prop_assert!(!without_secrets(&text).contains("hush"));
            }
        }
    }
}
