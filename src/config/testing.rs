//! What the tests of the sections of a service share: a whole file around what a test is about.

use super::{ServiceConfig, compile};

/// A service of this text behind its listener, and one backend. Whatever follows is about the backend.
pub(super) fn text(service: &str) -> String {
    format!(
        "[[service]]\nname = \"a\"\nlisten = \"1.1.1.1:1\"\n{service}\n\
         [[service.backend]]\naddress = \"2.2.2.2:2\"\n"
    )
}

/// The one service of a file, and what it is warned of.
pub(super) fn compiled(text: &str) -> (ServiceConfig, String) {
    let mut loaded = compile(text, "f").unwrap();
    let warnings = loaded.warnings.to_string();
    (loaded.config.services.remove(0), warnings)
}

/// The same, of a service of this text.
pub(super) fn read(service: &str) -> (ServiceConfig, String) {
    compiled(&text(service))
}

/// Why a service of this text is rejected.
pub(super) fn wrong(service: &str) -> String {
    compile(&text(service), "f").unwrap_err().to_string()
}
