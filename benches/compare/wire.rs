//! The protocol between load generator and backend. The first byte of a connection says what it is:
//! an echo, or a bulk stream that the backend sinks, sources, or both. A bulk stream ends with the
//! client's FIN, which the backend answers with its own two byte counts and a FIN: a proxy that loses,
//! adds or cuts bytes, or does not pass a half-close on, cannot hide it.

use std::sync::LazyLock;

/// The most that one read or write moves.
pub(crate) const CHUNK: usize = 256 * 1024;

/// After so many bytes a stream's content repeats.
const PERIOD: usize = 64 * 1024;

/// Bytes of [`Totals`] on the wire.
pub(crate) const TRAILER: usize = 16;

/// What the first byte of a connection asks of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Return every byte, this one included, until the client closes.
    Echo,
    /// Move bulk.
    Bulk {
        /// The backend sends as fast as it can until the client's FIN.
        source: bool,
    },
}

impl Mode {
    pub(crate) fn of(byte: u8) -> Option<Mode> {
        match byte {
            b'E' => Some(Mode::Echo),
            b'U' => Some(Mode::Bulk { source: false }),
            b'D' => Some(Mode::Bulk { source: true }),
            _ => None,
        }
    }

    pub(crate) fn byte(self) -> u8 {
        match self {
            Mode::Echo => b'E',
            Mode::Bulk { source: false } => b'U',
            Mode::Bulk { source: true } => b'D',
        }
    }
}

/// An echo request of `size` bytes.
pub(crate) fn request(size: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = bulk_at(0).iter().copied().cycle().take(size).collect();
    if let Some(first) = bytes.first_mut() {
        *first = Mode::Echo.byte();
    }
    bytes
}

/// Every 8-byte word of the period holds its own index, so that a shifted stream shows at any place.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let words = (PERIOD / 8) as u64;
    (0..words)
        .flat_map(u64::to_le_bytes)
        .cycle()
        .take(PERIOD + CHUNK)
        .collect()
});

/// [`CHUNK`] bytes of a bulk stream from `offset` on.
pub(crate) fn bulk_at(offset: u64) -> &'static [u8] {
    let start = in_period(offset);
    &PATTERN[start..start + CHUNK]
}

/// Whether the first and the last few bytes of `bytes` are those of a bulk stream at `offset`: enough to
/// notice lost or doubled bytes, without the client reading all memory twice.
pub(crate) fn is_bulk_at(offset: u64, bytes: &[u8]) -> bool {
    const SAMPLE: usize = 16;
    let expected = bulk_at(offset);
    let sample = bytes.len().min(SAMPLE);
    let tail = bytes.len() - sample;
    bytes[..sample] == expected[..sample] && bytes[tail..] == expected[tail..bytes.len()]
}

fn in_period(offset: u64) -> usize {
    (offset % PERIOD as u64) as usize
}

/// What a backend says it moved on a bulk stream, the trailer itself not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Totals {
    pub(crate) fn to_bytes(self) -> [u8; TRAILER] {
        let mut bytes = [0; TRAILER];
        bytes[..8].copy_from_slice(&self.sent.to_le_bytes());
        bytes[8..].copy_from_slice(&self.received.to_le_bytes());
        bytes
    }
}
