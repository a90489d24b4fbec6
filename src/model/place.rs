//! Where something listens: an address of the network, or a path of this host. Both are small enough to be
//! copied, so that the one costs no session anything for the sake of the other.

use std::ffi::OsStr;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What goes before a path where an address may stand, too.
const UNIX: &str = "unix:";

/// Where a listener or a server is: `ip:port`, `[v6]:port` or `unix:/path`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// In the network.
    Inet(SocketAddr),
    /// On this host.
    Unix(UnixPath),
}

impl Address {
    /// The address in the network, if it is one.
    pub fn inet(self) -> Option<SocketAddr> {
        match self {
            Self::Inet(address) => Some(address),
            Self::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Inet(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.as_path().display()),
        }
    }
}

/// A text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither ip:port, [v6]:port nor unix:/path")]
pub struct NoAddress;

impl FromStr for Address {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<Self, NoAddress> {
        match text.strip_prefix(UNIX) {
            Some(path) => UnixPath::new(Path::new(path))
                .map(Self::Unix)
                .ok_or(NoAddress),
            None => text.parse().map(Self::Inet).map_err(|_| NoAddress),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// An absolute path that a Unix socket can have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixPath {
    /// Zeros behind the path, so that equal paths are equal in all of it.
    bytes: [u8; Self::LONGEST],
    length: u8,
}

impl UnixPath {
    /// The longest that the kernel takes: a `sockaddr_un`, without the NUL at its end.
    pub const LONGEST: usize = 107;

    /// `path`, if it is absolute and no longer than the kernel takes.
    pub fn new(path: &Path) -> Option<Self> {
        let text = path.as_os_str().as_bytes();
        let fits = path.is_absolute() && !text.contains(&0);
        let mut bytes = [0; Self::LONGEST];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        fits.then_some(Self {
            bytes,
            length: text.len() as u8,
        })
    }

    /// The path.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.as_bytes()))
    }

    /// Its bytes, without a NUL.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl Hash for UnixPath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for UnixPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_path().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_it_is_written_as() {
        for text in ["192.0.2.1:80", "[2001:db8::1]:80", "unix:/run/x.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "192.0.2.1", "unix:", "unix:run/x.sock", "/run/x.sock"] {
            assert_eq!(text.parse::<Address>(), Err(NoAddress), "{text}");
        }
        assert!(size_of::<Address>() <= 112);
    }

    #[test]
    fn a_path_is_at_most_as_long_as_the_kernel_takes() {
        let path = |length: usize| format!("/{}", "x".repeat(length - 1));
        let longest = UnixPath::new(Path::new(&path(107))).unwrap();
        assert_eq!(longest.as_bytes().len(), 107);
        assert_eq!(UnixPath::new(Path::new(&path(108))), None);
        assert_eq!(UnixPath::new(Path::new("/a\0b")), None);
    }
}
