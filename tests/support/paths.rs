//! Servers and clients at paths: Unix sockets.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use super::peer::bounded;

/// How a path is written in a file.
pub fn at(path: &Path) -> String {
    format!("unix:{}", path.display())
}

/// A stream to a path, in the clothes of one of TCP, in which everything else in these tests goes.
pub fn dial(path: &Path) -> io::Result<TcpStream> {
    let stream = UnixStream::connect(path)?;
    let stream = TcpStream::from(OwnedFd::from(stream));
    bounded(&stream);
    Ok(stream)
}

/// Greets with `name` at that path, then sends back what it gets. Ends with the test.
pub fn serve(path: &Path, name: &str) {
    let listener = UnixListener::bind(path).expect("a path in a directory of ours");
    let greeting = format!("{name}\n");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, greeting) = (stream.expect("descriptors"), greeting.clone());
            thread::spawn(move || {
                // A probe leaves before it is greeted.
                if stream.write_all(greeting.as_bytes()).is_ok() {
                    let mut reader = stream.try_clone().expect("descriptors");
                    // An error is the peer's ending; there is nobody to tell.
                    drop(io::copy(&mut reader, &mut stream));
                    drop(stream.shutdown(Shutdown::Write));
                }
            });
        }
    });
}
