//! What the kernel says when it has nothing left to give.

use std::io;

/// Whether `error` tells of a lack of descriptors or of memory, which may be over in a moment. A source without a
/// port left is another matter: that is no reason to let clients wait who go elsewhere.
pub fn tells_of_a_shortage(error: &io::Error) -> bool {
    let short = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|it| short.contains(&it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_another_matter() {
        let says = |number| tells_of_a_shortage(&io::Error::from_raw_os_error(number));
        assert!(says(libc::EMFILE) && says(libc::ENOMEM));
        assert!(!says(libc::EADDRNOTAVAIL) && !says(libc::ECONNREFUSED));
    }
}
