//! What became of the sessions of one listener in one service: the counters that are not a backend's.
//!
//! Each worker has a page of its own, which it alone writes, so that counting costs neither a locked
//! instruction nor a cache line that another worker has. Whoever asks sums the pages.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::tally::add;
use super::{Cause, Ending, Histogram, HistogramSum, Moment, Phase, Who};

/// Bounds of how long connecting to a backend takes. In one room it takes less than a millisecond; a
/// lost SYN costs one second, a second one two more.
const CONNECT: [Duration; 15] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];

/// Bounds of how long sessions last: a request, a page, a pool's connection, a day.
const DURATION: [Duration; 16] = [
    Duration::from_millis(1),
    Duration::from_millis(3),
    Duration::from_millis(10),
    Duration::from_millis(30),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(15 * 60),
    Duration::from_secs(60 * 60),
    Duration::from_secs(6 * 60 * 60),
    Duration::from_secs(24 * 60 * 60),
];

/// Bounds of how long clients wait for a place at a backend.
const QUEUE: [Duration; 11] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// The pages of all workers.
#[derive(Debug)]
pub struct Ledger(Box<[OnceLock<Box<Page>>]>);

impl Ledger {
    /// A page for each of `workers`, made when it is needed: many listeners are idle.
    pub fn new(workers: usize) -> Self {
        Self((0..workers.max(1)).map(|_| OnceLock::new()).collect())
    }

    /// The page of one worker, which alone writes on it.
    pub fn page(&self, worker: usize) -> &Page {
        self.0[worker % self.0.len()].get_or_init(Box::default)
    }

    /// All pages summed.
    pub fn sum(&self) -> LedgerSum {
        let mut sum = LedgerSum {
            connect: HistogramSum::over(&CONNECT),
            duration: HistogramSum::over(&DURATION),
            queue: HistogramSum::over(&QUEUE),
            ..LedgerSum::default()
        };
        let mut endings = [0; ENDINGS];
        let mut last_unserved = [0; CAUSES];
        for page in self.0.iter().filter_map(OnceLock::get) {
            sum.opened += page.opened.load(Ordering::Relaxed);
            for (sum, at) in last_unserved.iter_mut().zip(&page.last_unserved) {
                *sum = at.load(Ordering::Relaxed).max(*sum);
            }
            sum.retries += page.retries.load(Ordering::Relaxed);
            sum.without_port += page.without_port.load(Ordering::Relaxed);
            for (sum, count) in endings.iter_mut().zip(&page.endings) {
                *sum += count.load(Ordering::Relaxed);
            }
            page.connect.add_to(&mut sum.connect);
            page.duration.add_to(&mut sum.duration);
            page.queue.add_to(&mut sum.queue);
        }
        let seen = endings.into_iter().enumerate();
        let seen = seen.filter(|(_, count)| *count > 0);
        sum.endings = seen.map(|(at, count)| (ending_at(at), count)).collect();
        let seen = Cause::ALL.into_iter().zip(last_unserved);
        sum.last_unserved = seen.filter(|(_, at)| *at > 0).collect();
        sum
    }
}

/// One worker's counters.
#[derive(Debug)]
#[repr(align(64))]
pub struct Page {
    opened: AtomicU64,
    retries: AtomicU64,
    without_port: AtomicU64,
    /// For each cause.
    last_unserved: [AtomicU64; CAUSES],
    endings: [AtomicU64; ENDINGS],
    connect: Histogram<{ CONNECT.len() }>,
    duration: Histogram<{ DURATION.len() }>,
    queue: Histogram<{ QUEUE.len() }>,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            opened: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            without_port: AtomicU64::new(0),
            last_unserved: [const { AtomicU64::new(0) }; CAUSES],
            endings: [const { AtomicU64::new(0) }; ENDINGS],
            connect: Histogram::new(&CONNECT),
            duration: Histogram::new(&DURATION),
            queue: Histogram::new(&QUEUE),
        }
    }
}

impl Page {
    /// A session was accepted.
    pub fn opened(&self) {
        add(&self.opened, 1);
    }

    /// A session tries a further backend.
    pub fn retried(&self) {
        add(&self.retries, 1);
    }

    /// A source had no port left for a connection to a backend.
    pub fn had_no_port(&self) {
        add(&self.without_port, 1);
    }

    /// A session waited so long for a place.
    pub fn waited(&self, time: Duration) {
        self.queue.observe(time);
    }

    /// A backend took so long to accept a session.
    pub fn connected(&self, took: Duration) {
        self.connect.observe(took);
    }

    /// A client is given no backend.
    pub fn unserved(&self, cause: Cause, at: Moment) {
        self.last_unserved[cause.place()].store(at, Ordering::Relaxed);
    }

    /// A session that lasted so long is over.
    pub fn ended(&self, ending: Ending, lasted: Duration) {
        add(&self.endings[place_of(ending)], 1);
        self.duration.observe(lasted);
    }
}

/// What the sessions of a listener have come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerSum {
    /// Sessions accepted.
    pub opened: u64,
    /// Further backends that were tried.
    pub retries: u64,
    /// Times that a source had no port left for a connection to a backend.
    pub without_port: u64,
    /// Sessions that are over, by how; those that were seen. Of [`Cause::Os`] there is one, with 0.
    pub endings: Vec<(Ending, u64)>,
    /// When a client was last given no backend, for each cause that there was. Of [`Cause::Os`] there is one, with 0.
    pub last_unserved: Vec<(Cause, Moment)>,
    /// How long backends took to accept a session.
    pub connect: HistogramSum,
    /// How long the sessions lasted that are over.
    pub duration: HistogramSum,
    /// How long clients waited for a place.
    pub queue: HistogramSum,
}

impl LedgerSum {
    /// Sessions that are over.
    pub fn ended(&self) -> u64 {
        self.endings.iter().map(|(_, count)| count).sum()
    }

    /// Sessions that are running.
    pub fn open(&self) -> u64 {
        // The two are read one after the other.
        self.opened.saturating_sub(self.ended())
    }
}

const CAUSES: usize = Cause::ALL.len();
const ENDINGS: usize = Who::ALL.len() * Phase::ALL.len() * CAUSES;

/// Where an ending is counted.
fn place_of(ending: Ending) -> usize {
    let of_phase = ending.who.place() * Phase::ALL.len() + ending.phase.place();
    of_phase * Cause::ALL.len() + ending.cause.place()
}

/// What is counted there.
fn ending_at(place: usize) -> Ending {
    let (of_phase, cause) = (place / Cause::ALL.len(), place % Cause::ALL.len());
    let (who, phase) = (of_phase / Phase::ALL.len(), of_phase % Phase::ALL.len());
    Ending::new(Who::ALL[who], Phase::ALL[phase], Cause::ALL[cause])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_has_a_place_of_its_own() {
        for place in 0..ENDINGS {
            assert_eq!(place_of(ending_at(place)), place);
        }
    }

    #[test]
    fn pages_add_up_and_any_number_of_the_system_is_one_cause() {
        let ledger = Ledger::new(2);
        let second = Duration::from_secs(1);
        let os = |number| Ending::new(Who::Backend, Phase::Connect, Cause::Os(number));
        let clean = Ending::new(Who::Client, Phase::Relay, Cause::Finished);
        for worker in [0, 1, 1] {
            ledger.page(worker).opened();
        }
        ledger.page(0).ended(os(92), second);
        ledger.page(1).ended(os(71), second);
        assert_eq!(ledger.sum().endings, [(os(0), 2)]);
        assert_eq!(ledger.sum().open(), 1);
        ledger.page(1).ended(clean, second);
        ledger.page(0).unserved(Cause::Refused, 8);
        ledger.page(1).unserved(Cause::Refused, 7);
        ledger.page(1).unserved(Cause::Os(71), 9);
        let sum = ledger.sum();
        assert_eq!(sum.last_unserved, [(Cause::Refused, 8), (Cause::Os(0), 9)]);
        assert_eq!((sum.opened, sum.ended(), sum.open()), (3, 3, 0));
        assert_eq!(sum.duration.total, 3 * second);
    }

    #[test]
    fn bounds_ascend() {
        assert!(CONNECT.is_sorted() && DURATION.is_sorted() && QUEUE.is_sorted());
    }
}
