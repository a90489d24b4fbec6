//! A file with a bearer token in it: the one way in which the daemon reads those that it compares with and
//! those that it sends, and its commands theirs.

use std::path::Path;

use super::load::{Unreadable, read};

/// Why a file gives no token.
#[derive(Debug, thiserror::Error)]
pub enum NoToken {
    /// Nobody knows what is in it.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// Nothing is in it.
    #[error("there is no token in it")]
    Empty,
    /// It is not one line of text.
    #[error("what is in it is no token")]
    Unusable,
}

impl NoToken {
    /// Whether another user may be let in.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Unreadable(Unreadable::Forbidden))
    }
}

/// The token in the file at `path`, without the blanks around it: one line that can be sent in a header.
///
/// # Errors
/// Why there is none.
pub fn token(path: &Path) -> Result<String, NoToken> {
    let text = String::from_utf8(read(path)?).map_err(|_| NoToken::Unusable)?;
    match text.trim() {
        "" => Err(NoToken::Empty),
        token if token.len() > LONGEST || token.contains(char::is_control) => {
            Err(NoToken::Unusable)
        }
        token => Ok(token.to_owned()),
    }
}

/// Bytes of a token.
const LONGEST: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_line_in_a_regular_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let why = |path: &Path| token(path).unwrap_err().to_string();
        assert_eq!(why(&file), "no such file");
        assert_eq!(why(directory.path()), "not a regular file but a directory");
        assert!(why(Path::new("/dev/zero")).starts_with("not a regular file"));
        for (content, said) in [
            (" \n", "there is no token in it"),
            ("one\ntwo", "what is in it is no token"),
            (&*"x".repeat(LONGEST + 1), "what is in it is no token"),
        ] {
            std::fs::write(&file, content).unwrap();
            assert_eq!(why(&file), said);
        }
        std::fs::write(&file, "secret\n").unwrap();
        assert_eq!(token(&file).unwrap(), "secret");
    }
}
