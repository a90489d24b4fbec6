//! A bad wire: a proxy that passes on what it gets, and ill-treats it on the way as the test says. It
//! never changes, loses or repeats a byte that it passes on, and ends a connection with a FIN only
//! where its end has sent one or a [`Fault`] asks for it; so whatever else arrives behind it is the
//! daemon's doing.
//!
//! One thread for each connection owns both sockets: a reset is the close of the last descriptor.

use std::cmp;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::backend::Backend;
use super::patience::DEADLINE;
use super::peer::{abort, connect, unsent};

/// What is read at once.
const CHUNK: usize = 16 * 1024;
/// A direction that holds this much reads no more, so that its sender is held back.
const HELD: usize = 256 * 1024;
/// How often a wire that is held looks whether it may go on.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What a wire does to one of its directions. Times are added up, limits all hold.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Pieces of 1 to `most` bytes, each a segment of its own, with a pause behind each.
    Slice { most: usize, pause: Duration },
    /// All arrives so much later, in order, by up to `jitter` more.
    Delay { by: Duration, jitter: Duration },
    /// No more than so many bytes a second.
    Cap { bytes_per_second: u64 },
    /// The FIN comes so much later.
    SlowClose { by: Duration },
    /// After so many bytes comes a FIN; what follows is taken and thrown away.
    HalfCloseAfter(u64),
    /// After so many bytes have arrived both ends are reset.
    ResetAfter(u64),
    /// After so many bytes have arrived both ends are closed.
    CloseAfter(u64),
    /// After so many bytes all is taken and nothing arrives any more, not even the end.
    SwallowAfter(u64),
}

/// The proxy.
pub struct Chaos {
    inside: Backend,
    held: Arc<AtomicBool>,
}

impl Chaos {
    /// A wire to `target`, at an address of its own, with faults on the way there and on the way back.
    pub fn before(target: SocketAddr, there: &[Fault], back: &[Fault]) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let held = Arc::new(AtomicBool::new(false));
        let gate = Arc::clone(&held);
        let (there, back) = (there.to_vec(), back.to_vec());
        let inside = Backend::serve(move |near| {
            let Ok(far) = connect(target) else {
                return abort(near);
            };
            let seed = NEXT.fetch_add(1, Ordering::Relaxed);
            let ways = [
                Way::new(&there, seed),
                // Another stream of numbers, and never the zero that xorshift cannot leave.
                Way::new(&back, !seed),
            ];
            let mut link = Link {
                ends: [near, far],
                ways,
                hung_up: [false; 2],
            };
            match link.run(&gate) {
                Ok(()) => (),
                // Somebody has reset, or a fault says so.
                Err(_) => link.ends.into_iter().for_each(abort),
            }
        });
        Self { inside, held }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.inside.address()
    }

    /// Takes nothing and passes nothing on, either way, until [`Chaos::go_on`].
    pub fn stall(&self) {
        self.held.store(true, Ordering::Relaxed);
    }

    /// Ends a stall.
    pub fn go_on(&self) {
        self.held.store(false, Ordering::Relaxed);
    }
}

/// One connection: `ends[0]` is who connected, `ways[0]` leads from there to the target.
struct Link {
    ends: [TcpStream; 2],
    ways: [Way; 2],
    hung_up: [bool; 2],
}

/// How a link ended other than well.
fn broken() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl Link {
    /// Relays until both directions have ended; an error says that both ends are to be reset.
    fn run(&mut self, held: &AtomicBool) -> io::Result<()> {
        for end in &self.ends {
            end.set_nonblocking(true)?;
            end.set_nodelay(true)?;
        }
        let mut buffer = vec![0; CHUNK];
        loop {
            let stalled = held.load(Ordering::Relaxed);
            if !stalled && self.step(&mut buffer)? == Verdict::Over {
                return Ok(());
            }
            self.wait(stalled)?;
        }
    }

    fn step(&mut self, buffer: &mut [u8]) -> io::Result<Verdict> {
        for index in 0..2 {
            let (from, to) = (&self.ends[index], &self.ends[1 - index]);
            self.ways[index].read(from, buffer)?;
            match self.ways[index].write(to) {
                Ok(Verdict::GoOn) => (),
                Ok(Verdict::Over) => return Ok(Verdict::Over),
                Err(Broken::Asked) => return Err(broken()),
                // What that end has said before is still on its way.
                Err(Broken::Failed) => {
                    self.ways[index].deafen();
                    self.ways[index].over = true;
                    self.ways[1 - index].read(to, buffer)?;
                    self.ways[1 - index].break_off()?;
                }
            }
        }
        let over = self.ways.iter().all(|way| way.over);
        Ok(if over { Verdict::Over } else { Verdict::GoOn })
    }

    /// Waits for what either way wants.
    fn wait(&mut self, stalled: bool) -> io::Result<()> {
        let now = Instant::now();
        let mut wanted = [PollFlags::empty(); 2];
        let mut pause = DEADLINE;
        if stalled {
            pause = LOOK_AGAIN;
        } else {
            for (index, way) in self.ways.iter().enumerate() {
                if way.reads() {
                    wanted[index] |= PollFlags::IN;
                }
                match way.next(now) {
                    Some(rest) if rest.is_zero() => wanted[1 - index] |= PollFlags::OUT,
                    Some(rest) => pause = cmp::min(pause, rest),
                    None => (),
                }
            }
        }
        // One that has hung up would say so again and again.
        let asked: Vec<_> = (0..2)
            .filter(|&index| !stalled && (!self.hung_up[index] || !wanted[index].is_empty()))
            .collect();
        let mut fds: Vec<_> = asked
            .iter()
            .map(|&index| PollFd::new(&self.ends[index], wanted[index]))
            .collect();
        let pause = Timespec::try_from(pause).map_err(io::Error::other)?;
        poll(&mut fds, Some(&pause))?;
        let told: Vec<_> = fds.iter().map(PollFd::revents).collect();
        for (index, told) in asked.into_iter().zip(told) {
            self.hung_up[index] |= told.contains(PollFlags::HUP);
            // A reset behind a FIN shows in no read.
            if told.contains(PollFlags::ERR) && self.ways[index].fin.is_some() {
                self.ways[index].break_off()?;
            }
        }
        Ok(())
    }
}

#[derive(PartialEq, Eq)]
enum Verdict {
    GoOn,
    /// Both ends are to be closed.
    Over,
}

/// Why a direction has to stop.
enum Broken {
    /// A fault says so.
    Asked,
    /// The sink takes nothing any more.
    Failed,
}

/// Waits until the other side's kernel has what was passed on: a reset would overtake it.
fn delivered(to: &TcpStream) {
    let since = Instant::now();
    while unsent(to) > 0 && since.elapsed() < DEADLINE {
        thread::sleep(Duration::from_millis(1));
    }
}

/// One direction.
struct Way {
    faults: Vec<Fault>,
    random: u64,
    /// What was read, and when it is due.
    queue: VecDeque<(Instant, Vec<u8>)>,
    queued: usize,
    passed: u64,
    /// Before this nothing more is written.
    not_before: Instant,
    /// The source has ended, and when that is to be told.
    fin: Option<Instant>,
    /// The end was a reset.
    broken: bool,
    /// What comes is thrown away.
    deaf: bool,
    /// The FIN was passed on, or never will be.
    over: bool,
}

impl Way {
    fn new(faults: &[Fault], seed: u64) -> Self {
        Self {
            faults: faults.to_vec(),
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            queue: VecDeque::new(),
            queued: 0,
            passed: 0,
            not_before: Instant::now(),
            fin: None,
            broken: false,
            deaf: false,
            over: false,
        }
    }

    fn reads(&self) -> bool {
        self.fin.is_none() && self.queued < HELD
    }

    /// How long until something can be written or told; nothing if there is nothing.
    fn next(&self, now: Instant) -> Option<Duration> {
        if self.over || self.deaf {
            return None;
        }
        let due = match self.queue.front() {
            Some((due, _)) => cmp::max(*due, self.not_before),
            None => self.fin?,
        };
        Some(due.saturating_duration_since(now))
    }

    fn read(&mut self, mut from: &TcpStream, buffer: &mut [u8]) -> io::Result<()> {
        while self.reads() {
            match from.read(buffer) {
                Ok(0) => {
                    let last = self.queue.back().map(|(due, _)| *due);
                    let now = Instant::now();
                    self.fin = Some(cmp::max(last.unwrap_or(now), now) + self.slow_close());
                }
                Ok(_) if self.deaf => (),
                Ok(read) => {
                    let due = Instant::now() + self.delay();
                    // Nothing overtakes what came before it.
                    let last = self.queue.back().map_or(due, |(last, _)| *last);
                    let due = cmp::max(due, last);
                    self.queue.push_back((due, buffer[..read].to_vec()));
                    self.queued += read;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(_) => return self.break_off(),
            }
        }
        Ok(())
    }

    /// The source has reset, which is told behind all that it has said; an error if there is nothing left to
    /// say. A black hole keeps even that to itself.
    fn break_off(&mut self) -> io::Result<()> {
        if self.over {
            return Err(broken());
        }
        let last = self.queue.back().map(|(due, _)| *due);
        self.fin = self.fin.or(last).or(Some(Instant::now()));
        self.broken = true;
        Ok(())
    }

    /// Writes what may be written now.
    fn write(&mut self, mut to: &TcpStream) -> Result<Verdict, Broken> {
        loop {
            match self.limit() {
                Some((Fault::HalfCloseAfter(_), 0)) if !self.deaf => {
                    to.shutdown(Shutdown::Write).map_err(|_| Broken::Failed)?;
                    self.deafen();
                    self.over = true;
                }
                Some((Fault::SwallowAfter(_), 0)) => self.deafen(),
                Some((Fault::ResetAfter(_), 0)) => {
                    delivered(to);
                    return Err(Broken::Asked);
                }
                Some((Fault::CloseAfter(_), 0)) => {
                    delivered(to);
                    return Ok(Verdict::Over);
                }
                _ => (),
            }
            let now = Instant::now();
            if self.next(now).is_none_or(|rest| !rest.is_zero()) {
                return Ok(Verdict::GoOn);
            }
            let most = self.piece();
            let Some((_, chunk)) = self.queue.front_mut() else {
                if self.broken {
                    delivered(to);
                    return Err(Broken::Asked);
                }
                to.shutdown(Shutdown::Write).map_err(|_| Broken::Failed)?;
                self.over = true;
                return Ok(Verdict::GoOn);
            };
            let piece = &chunk[..most.min(chunk.len())];
            match to.write(piece) {
                Ok(written) => {
                    chunk.drain(..written);
                    if chunk.is_empty() {
                        self.queue.pop_front();
                    }
                    self.queued -= written;
                    self.passed += written as u64;
                    self.not_before = now + self.rest(written as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Verdict::GoOn);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(_) => return Err(Broken::Failed),
            }
        }
    }

    fn deafen(&mut self) {
        self.deaf = true;
        self.queue.clear();
        self.queued = 0;
    }

    /// The limit that is closest, and how many bytes are left to it.
    fn limit(&self) -> Option<(Fault, u64)> {
        let left = |fault: &Fault| match *fault {
            Fault::HalfCloseAfter(bytes)
            | Fault::ResetAfter(bytes)
            | Fault::CloseAfter(bytes)
            | Fault::SwallowAfter(bytes) => Some((*fault, bytes.saturating_sub(self.passed))),
            Fault::Slice { .. }
            | Fault::Delay { .. }
            | Fault::Cap { .. }
            | Fault::SlowClose { .. } => None,
        };
        self.faults.iter().filter_map(left).min_by_key(|it| it.1)
    }

    /// The most to write at once.
    fn piece(&mut self) -> usize {
        let limit = self.limit().map_or(u64::MAX, |(_, left)| left);
        let mut most = usize::try_from(limit).unwrap_or(usize::MAX);
        for index in 0..self.faults.len() {
            if let Fault::Slice { most: slice, .. } = self.faults[index] {
                let drawn = 1 + self.draw() % slice as u64;
                most = most.min(usize::try_from(drawn).unwrap_or(slice));
            }
            // A hundredth of a second's worth, so that it flows.
            if let Fault::Cap { bytes_per_second } = self.faults[index] {
                let worth = usize::try_from(bytes_per_second / 100).unwrap_or(usize::MAX);
                most = most.min(worth.max(1));
            }
        }
        most
    }

    /// How long to rest after so many bytes.
    fn rest(&self, written: u64) -> Duration {
        let rest = |fault: &Fault| {
            if let Fault::Slice { pause, .. } = *fault {
                return pause;
            }
            if let Fault::Cap { bytes_per_second } = *fault {
                return Duration::from_nanos(written * 1_000_000_000 / bytes_per_second);
            }
            Duration::ZERO
        };
        self.faults.iter().map(rest).sum()
    }

    fn delay(&mut self) -> Duration {
        let mut sum = Duration::ZERO;
        for index in 0..self.faults.len() {
            if let Fault::Delay { by, jitter } = self.faults[index] {
                let share = self.draw() % 1000;
                sum += by + jitter * u32::try_from(share).unwrap_or(0) / 1000;
            }
        }
        sum
    }

    fn slow_close(&self) -> Duration {
        let slow = |fault: &Fault| {
            if let Fault::SlowClose { by } = *fault {
                return by;
            }
            Duration::ZERO
        };
        self.faults.iter().map(slow).sum()
    }

    /// xorshift64: each wire has a stream of its own, the same in each run.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::{End, Meeting, Pattern, Peer, steadily};

    const KIB: u64 = 1024;

    /// The two ends of a connection over a wire with such faults.
    fn over(there: &[Fault], back: &[Fault]) -> (Chaos, TcpStream, TcpStream) {
        let meeting = Meeting::new();
        let wire = Chaos::before(meeting.address(), there, back);
        let (near, far) = meeting.session(wire.address());
        (wire, near, far)
    }

    /// Sends `pattern` and a FIN from another thread.
    fn send(stream: &TcpStream, pattern: &Pattern) -> thread::JoinHandle<io::Result<()>> {
        let mut stream = stream.try_clone().unwrap();
        let pattern = pattern.clone();
        thread::spawn(move || {
            pattern.send(&mut stream)?;
            stream.shutdown(Shutdown::Write)
        })
    }

    fn passes_all(faults: &[Fault], length: u64) -> Duration {
        let (_wire, mut near, mut far) = over(faults, faults);
        let (up, down) = (Pattern::new(1, length), Pattern::new(2, length));
        let since = Instant::now();
        let sending = [send(&near, &up), send(&far, &down)];
        assert_eq!(up.expect_then_end(&mut far), End::Fin);
        assert_eq!(down.expect_then_end(&mut near), End::Fin);
        for sender in sending {
            sender.join().unwrap().unwrap();
        }
        since.elapsed()
    }

    #[test]
    fn without_a_fault_it_is_a_wire() {
        passes_all(&[], 3000 * KIB);
    }

    #[test]
    fn slices_delays_and_caps_change_nothing_but_the_pace() {
        let pause = Duration::from_micros(50);
        passes_all(&[Fault::Slice { most: 7, pause }], 8 * KIB);
        let [by, jitter] = [40, 20].map(Duration::from_millis);
        assert!(passes_all(&[Fault::Delay { by, jitter }], 300 * KIB) >= by);
        let bytes_per_second = 1000 * KIB;
        let took = passes_all(&[Fault::Cap { bytes_per_second }], 300 * KIB);
        assert!(took >= Duration::from_millis(250), "{took:?}");
        let by = Duration::from_millis(200);
        assert!(passes_all(&[Fault::SlowClose { by }], KIB) >= by);
    }

    #[test]
    fn a_reset_comes_right_behind_so_many_bytes_on_both_sides() {
        // Eight bytes introduce a session.
        let (_wire, near, mut far) = over(&[Fault::ResetAfter(8 + 100_000)], &[]);
        let sending = send(&near, &Pattern::new(1, 10_000 * KIB));
        let arrived = Pattern::new(1, 100_000);
        assert_eq!(arrived.expect_then_end(&mut far), End::Reset);
        assert!(sending.join().unwrap().is_err());
    }

    #[test]
    fn a_half_close_after_so_many_bytes_leaves_the_way_back_open() {
        let (_wire, mut near, mut far) = over(&[Fault::HalfCloseAfter(8 + 100_000)], &[]);
        let sending = send(&near, &Pattern::new(1, 1000 * KIB));
        let arrived = Pattern::new(1, 100_000);
        assert_eq!(arrived.expect_then_end(&mut far), End::Fin);
        let back = Pattern::new(2, 1000 * KIB);
        let answering = send(&far, &back);
        assert_eq!(back.expect_then_end(&mut near), End::Fin);
        sending.join().unwrap().unwrap();
        answering.join().unwrap().unwrap();
    }

    #[test]
    fn a_limit_closes_behind_so_many_bytes() {
        let (_wire, mut near, far) = over(&[], &[Fault::CloseAfter(5000)]);
        let sending = send(&far, &Pattern::new(1, 10_000 * KIB));
        Pattern::new(1, 5000).expect_then_end(&mut near);
        assert!(sending.join().unwrap().is_err());
    }

    #[test]
    fn a_black_hole_takes_all_and_gives_nothing() {
        let (_wire, near, mut far) = over(&[Fault::SwallowAfter(8 + 10)], &[]);
        send(&near, &Pattern::new(1, 10_000 * KIB))
            .join()
            .unwrap()
            .unwrap();
        Pattern::new(1, 10).expect(&mut far);
        assert!(far.is_silent(Duration::from_millis(200)));
    }

    #[test]
    fn a_stall_holds_the_sender_back_and_loses_nothing() {
        let (wire, near, mut far) = over(&[], &[]);
        wire.stall();
        let data = Pattern::new(1, 64 * 1024 * KIB);
        let progress = data.progress();
        let sending = send(&near, &data);
        let stand = steadily(Duration::from_millis(200), "the sender stands", || {
            progress.load(Ordering::Relaxed)
        });
        assert!(stand < 64 * 1024 * KIB);
        wire.go_on();
        assert_eq!(data.expect_then_end(&mut far), End::Fin);
        sending.join().unwrap().unwrap();
    }

    #[test]
    fn a_reset_of_either_end_reaches_the_other_behind_the_data() {
        let (_wire, mut near, mut far) = over(&[], &[]);
        near.put(b"the last words");
        near.reset();
        far.get(b"the last words");
        assert_eq!(far.end(), End::Reset);
    }
}
