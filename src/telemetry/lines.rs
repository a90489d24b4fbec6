//! Lines to stderr or stdout without waiting: a bounded queue between those who have something to
//! say and the one thread that writes.
//!
//! Written here rather than taken from `tracing-appender`, because that one prints to stdout when
//! stderr stalls at the exit (a panic if stdout is closed), does not count the lines that a broken
//! stderr refuses, makes one system call a line, and brings a date library and a channel with it.
//! This module must not know what a line says.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// The producers' end; clones share one queue.
#[derive(Clone, Debug)]
pub(crate) struct LineQueue {
    sender: SyncSender<Item>,
    lost: Arc<AtomicU64>,
}

impl LineQueue {
    /// Starts the thread that writes to `sink`. It ends with the process, or with the last clone.
    pub(crate) fn start(sink: impl Write + Send + 'static) -> Self {
        let (sender, receiver) = sync_channel(MOST_LINES);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Drain {
            receiver,
            sink,
            lost: Arc::clone(&lost),
        };
        let started = thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.run());
        if let Err(error) = started {
            // Every line counts as lost from here on. The workers' threads will not start either,
            // and that fails where somebody is told.
            let _ = writeln!(io::stderr(), "cannot start the log thread: {error}");
        }
        Self { sender, lost }
    }

    /// Lines that were not written: no room in the queue, or the sink failed.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until what was queued before the call is written, at most `patience`.
    pub(crate) fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let (done, written) = sync_channel(1);
        let mut item = Item::Mark(done);
        loop {
            match self.sender.try_send(item) {
                Ok(()) => break,
                Err(TrySendError::Disconnected(_)) => return,
                Err(TrySendError::Full(_)) if Instant::now() >= deadline => return,
                Err(TrySendError::Full(back)) => item = back,
            }
            thread::sleep(RETRY);
        }
        // Too late or gone: the caller wants to leave either way.
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }

    /// Counts lines as lost, without a sink that loses them.
    #[cfg(test)]
    pub(crate) fn lose(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
    }
}

/// Takes one line at each write, and never waits or fails.
impl Write for LineQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.sender.try_send(Item::Line(line.into())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineQueue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

enum Item {
    Line(Box<[u8]>),
    /// Answered when every line before it is written.
    Mark(SyncSender<()>),
}

/// The writing end.
struct Drain<W> {
    receiver: Receiver<Item>,
    sink: W,
    lost: Arc<AtomicU64>,
}

impl<W: Write> Drain<W> {
    /// Writes what comes, a batch at a time, until every sender is gone.
    fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while let Ok(first) = self.receiver.recv() {
            let mut lines = 0;
            let mut mark = None;
            let mut next = Some(first);
            while let Some(item) = next.take() {
                match item {
                    Item::Line(line) => {
                        batch.extend_from_slice(&line);
                        lines += 1;
                        if batch.len() < BATCH {
                            next = self.receiver.try_recv().ok();
                        }
                    }
                    Item::Mark(done) => mark = Some(done),
                }
            }
            if write_patiently(&mut self.sink, &batch).is_err() {
                self.lost.fetch_add(lines, Ordering::Relaxed);
            }
            batch.clear();
            if let Some(done) = mark {
                // Whoever asked may have given up.
                let _ = done.send(());
            }
        }
    }
}

/// `write_all` that also copes with a stderr that a neighbour on the same terminal has made
/// non-blocking.
fn write_patiently(sink: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match sink.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Lines that wait at most: about two megabytes, a second of heavy session logging.
const MOST_LINES: usize = 8192;

/// Bytes after which a batch is written although more lines wait.
const BATCH: usize = 64 * 1024;

/// Between two looks at something full.
const RETRY: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    #[test]
    fn lines_arrive_in_order_and_a_flush_waits_for_them() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut queue = LineQueue::start(ours);
        for number in 0..1000 {
            queue.write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        queue.flush(Duration::from_secs(10));
        drop(queue);
        let mut read = String::new();
        theirs.read_to_string(&mut read).unwrap();
        let expected: String = (0..1000).map(|number| format!("{number}\n")).collect();
        assert_eq!(read, expected);
    }

    #[test]
    fn a_stalled_reader_costs_lines_and_no_time() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut queue = LineQueue::start(ours);
        let line = [b'x'; 1024];
        // More than the queue and any socket buffer hold; nobody reads, and no write waits.
        let written = 4 * MOST_LINES as u64;
        for _ in 0..written {
            queue.write_all(&line).unwrap();
        }
        queue.flush(Duration::from_millis(20));
        let lost = queue.lost();
        assert!(lost > 0, "the queue has a bound");
        drop(queue);
        let mut read = Vec::new();
        theirs.read_to_end(&mut read).unwrap();
        assert_eq!(read.len() as u64 / 1024, written - lost);
    }

    #[test]
    fn a_non_blocking_sink_loses_nothing() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut queue = LineQueue::start(ours);
        for _ in 0..2000 {
            queue.write_all(&[b'x'; 1024]).unwrap();
        }
        drop(queue);
        let mut read = Vec::new();
        theirs.read_to_end(&mut read).unwrap();
        assert_eq!(read.len(), 2000 * 1024);
    }

    #[test]
    fn a_closed_sink_is_counted_and_survived() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let mut queue = LineQueue::start(ours);
        for expected in 1..=3 {
            queue.write_all(b"into the void\n").unwrap();
            queue.flush(Duration::from_secs(10));
            assert_eq!(queue.lost(), expected);
        }
    }
}
