//! Byte streams that show a lost, repeated, swapped or changed byte, at its offset.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::patience::steadily;
use super::peer::{End, Peer};

/// A prime, so that no buffer size of the daemon divides it and a shift by one buffer shows.
const PERIOD: usize = 1_048_573;

/// How much is written or read at once unless a test says otherwise.
const CHUNK: usize = 256 * 1024;

/// Buffers that took nothing for this long are full.
const QUIET: Duration = Duration::from_millis(300);

/// A stream of `length` bytes; streams of different seeds differ from the first bytes on.
#[derive(Clone, Debug)]
pub struct Pattern {
    start: usize,
    length: u64,
    progress: Arc<AtomicU64>,
}

impl Pattern {
    /// The stream of `seed`, `length` bytes long.
    pub fn new(seed: u64, length: u64) -> Self {
        let start = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) % PERIOD as u64;
        Self {
            start: usize::try_from(start).expect("below the period"),
            length,
            progress: Arc::new(AtomicU64::new(0)),
        }
    }

    /// Bytes that the last or running `send` or `expect` has moved.
    pub fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.progress)
    }

    /// Writes the whole stream.
    pub fn send(&self, stream: &mut TcpStream) -> io::Result<()> {
        let mut offset = 0;
        while offset < self.length {
            offset += self.send_some(stream, offset, CHUNK)?;
            self.progress.store(offset, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Sends all of it on a clone of `stream` and ends that direction, beside whoever calls.
    pub fn send_and_half_close(&self, stream: &TcpStream) -> JoinHandle<()> {
        let mut stream = stream.try_clone().expect("descriptors");
        let pattern = self.clone();
        thread::spawn(move || {
            pattern.send(&mut stream).expect("the connection stands");
            stream.half_close();
        })
    }

    /// Writes once, at most `most` of what follows the first `offset` bytes.
    pub fn send_some(&self, stream: &mut TcpStream, offset: u64, most: usize) -> io::Result<u64> {
        Ok(stream.write(self.piece(offset, most))? as u64)
    }

    /// Writes from the start until nothing on the way takes any more: the stream that arrived at the
    /// kernels, and that the other side is to get.
    pub fn fill(&self, stream: &mut TcpStream) -> Self {
        stream.set_nonblocking(true).expect("a socket");
        let mut offset = 0;
        steadily(QUIET, "every buffer is full", || {
            while offset < self.length {
                match stream.write(self.piece(offset, CHUNK)) {
                    Ok(written) => offset += written as u64,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error} after {offset} bytes"),
                }
            }
            offset
        });
        assert!(offset < self.length, "buffers without an end");
        stream.set_nonblocking(false).expect("a socket");
        Self {
            length: offset,
            ..self.clone()
        }
    }

    /// Reads once, and panics if that is not what follows the first `offset` bytes.
    pub fn expect_some(&self, stream: &mut TcpStream, offset: u64) -> u64 {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).expect("the connection stands");
        assert!(read > 0, "FIN after {offset} of {} bytes", self.length);
        self.check(offset, &buffer[..read]);
        offset + read as u64
    }

    /// Reads exactly the whole stream, and panics at the first byte that is wrong or missing.
    pub fn expect(&self, stream: &mut TcpStream) {
        self.expect_in(stream, CHUNK);
    }

    /// Like [`Pattern::expect`], at most `at_once` bytes a read.
    pub fn expect_in(&self, stream: &mut TcpStream, at_once: usize) {
        self.expect_rest(stream, 0, at_once);
    }

    /// Like [`Pattern::expect_in`], the first `offset` bytes having been read.
    pub fn expect_rest(&self, stream: &mut TcpStream, mut offset: u64, at_once: usize) {
        let mut buffer = vec![0; at_once];
        while offset < self.length {
            let most = at_once.min(usize::try_from(self.length - offset).unwrap_or(usize::MAX));
            match stream.read(&mut buffer[..most]) {
                Ok(0) => panic!("FIN after {offset} of {} bytes", self.length),
                Ok(read) => {
                    self.check(offset, &buffer[..read]);
                    offset += read as u64;
                    self.progress.store(offset, Ordering::Relaxed);
                }
                Err(error) => panic!("{error} after {offset} of {} bytes", self.length),
            }
        }
    }

    /// Reads the whole stream and then how it ended.
    pub fn expect_then_end(&self, stream: &mut TcpStream) -> End {
        self.expect(stream);
        let (extra, end) = End::read(stream);
        assert_eq!(extra, 0, "bytes after the last one");
        end
    }

    /// Reads until the stream ends, however far it has come by then: how many bytes came, each the right
    /// one, and how it ended.
    pub fn receive(&self, stream: &mut TcpStream) -> (u64, End) {
        let mut buffer = vec![0; CHUNK];
        let mut offset = 0;
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return (offset, End::Fin),
                Ok(read) => {
                    let end = offset + read as u64;
                    assert!(end <= self.length, "bytes after the last one");
                    self.check(offset, &buffer[..read]);
                    offset = end;
                    self.progress.store(offset, Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return (offset, End::Reset);
                }
                Err(error) => panic!("neither FIN nor RST after {offset} bytes: {error}"),
            }
        }
    }

    fn check(&self, offset: u64, got: &[u8]) {
        if let Some(wrong) = self.first_wrong(offset, got) {
            panic!("byte {wrong} is wrong");
        }
    }

    /// The first byte that is not what follows the first `offset` bytes, if there is one.
    pub fn first_wrong(&self, offset: u64, got: &[u8]) -> Option<u64> {
        let mut done = 0;
        while done < got.len() {
            let want = self.piece(offset + done as u64, got.len() - done);
            let have = &got[done..done + want.len()];
            if want != have || want.is_empty() {
                let same = want
                    .iter()
                    .zip(have)
                    .take_while(|(want, have)| want == have);
                return Some(offset + (done + same.count()) as u64);
            }
            done += want.len();
        }
        None
    }

    /// The bytes at `offset`, up to the wrap, the end, or `most`.
    pub fn piece(&self, offset: u64, most: usize) -> &'static [u8] {
        let block = block();
        let at = usize::try_from((self.start as u64 + offset) % PERIOD as u64)
            .expect("below the period");
        let left = usize::try_from(self.length - offset).unwrap_or(usize::MAX);
        &block[at..block.len().min(at + most.min(left))]
    }
}

/// One period of xorshift64*, shared by every stream.
fn block() -> &'static [u8] {
    static BLOCK: OnceLock<Vec<u8>> = OnceLock::new();
    BLOCK.get_or_init(|| {
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        (0..PERIOD)
            .map(|_| {
                state ^= state >> 12;
                state ^= state << 25;
                state ^= state >> 27;
                state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_be_bytes()[0]
            })
            .collect()
    })
}
