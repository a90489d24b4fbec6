//! One thread's event loop: its tasks, the descriptors and the times they wait for.
//!
//! A session is two sockets that wait for each other on one thread, and this is a loop for just that:
//! readiness without locks, a task and its place in the line, and a few timers. A closed descriptor
//! leaves epoll by itself, so nothing is deregistered; a socket costs 64 bytes here. The loop does what is
//! ready, looks for what has happened meanwhile, and sleeps only when there is neither. It knows nothing of sessions.
//!
//! Futures and wakers are the standard library's, so whatever else needs no particular runtime, channels
//! above all, works here as well. After the pattern of that name: Schmidt, "Reactor", PLoP 1994.
//!
//! `tasks` is who runs, `sources` what descriptors are ready for, `timers` what time it is for whom.

mod sources;
mod tasks;
mod timers;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use self::sources::Sources;
pub use self::sources::{Descriptor, Source};
use self::tasks::Tasks;
use self::timers::Timers;
pub use self::timers::{Sleep, sleep, sleep_until, timeout_at};

/// So many tasks take short turns in a row, and one a long turn, before the loop looks at what has happened meanwhile.
/// A look costs a hundredth of a long turn; where short turns never end, long ones are what gives way.
const TURNS: usize = 64;
/// After so much work without a chance to sleep the core is offered to whoever else waits for it, backends on this machine
/// and other workers among them. A thread that always has more to do would keep it until the scheduler's next tick, 4 ms
/// on many kernels, and all that time be in the tail of what the others do. A core that nobody else wants is kept.
const STRETCH: Duration = Duration::from_micros(250);

thread_local! {
    static CURRENT: RefCell<Option<Rc<Reactor>>> = const { RefCell::new(None) };
}

/// What a loop consists of.
struct Reactor {
    tasks: Tasks,
    sources: Sources,
    timers: Timers,
    /// Who goes on after the next look at what has happened.
    yielded: RefCell<Vec<Waker>>,
}

impl Reactor {
    /// The one that runs on this thread.
    ///
    /// # Panics
    /// Outside of [`run`].
    fn current() -> Rc<Self> {
        let current = CURRENT.with_borrow(Clone::clone);
        current.expect("called within a reactor")
    }

    /// Runs tasks until `is_over`, and keeps in `busy` how many nanoseconds it has not slept.
    fn turn(&self, is_over: impl Fn() -> bool, busy: &AtomicU64) -> io::Result<()> {
        let mut awake_since = Instant::now();
        let mut awake = busy.load(Ordering::Relaxed);
        let stretch = nanoseconds(STRETCH);
        let mut stretch_ends = awake + stretch;
        loop {
            self.tasks.run(TURNS);
            if is_over() {
                return Ok(());
            }
            self.tasks.collect();
            let idle = self.tasks.nobody_is_ready() && self.yielded.borrow().is_empty();
            let now = Instant::now();
            awake += nanoseconds(now.saturating_duration_since(awake_since));
            if idle {
                stretch_ends = awake + stretch;
            } else if awake >= stretch_ends {
                thread::yield_now();
                // Whoever waits for a core is not asleep.
                awake += nanoseconds(now.elapsed());
                stretch_ends = awake + stretch;
            }
            // Nobody else writes it.
            busy.store(awake, Ordering::Relaxed);
            let until = if idle { self.timers.next() } else { Some(now) };
            let patience = until.map(|it| it.saturating_duration_since(now));
            awake_since = self.sources.look(patience)?;
            self.tasks.collect();
            self.timers.fire(awake_since);
            for waker in self.yielded.take() {
                waker.wake();
            }
        }
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").finish_non_exhaustive()
    }
}

/// Runs `main`, and what it spawns, on this thread until it is over; what still runs then is dropped.
/// Meanwhile `busy` grows by every nanosecond that the thread is not in the kernel to learn what has happened;
/// nobody else may write it.
///
/// # Errors
/// When the kernel has no epoll instance left to give, or refuses to wait for one.
///
/// # Panics
/// When `main` does, or another reactor runs on this thread.
pub fn run<T: 'static>(main: impl Future<Output = T> + 'static, busy: &AtomicU64) -> io::Result<T> {
    let sources = Sources::new()?;
    let tasks = Tasks::new(sources.bell()?);
    let reactor = Rc::new(Reactor {
        tasks,
        sources,
        timers: Timers::default(),
        yielded: RefCell::default(),
    });
    let is_first = CURRENT.with_borrow(Option::is_none);
    assert!(is_first, "a thread has one reactor");
    CURRENT.set(Some(Rc::clone(&reactor)));
    let leave = Leave(&reactor);
    let outcome = Rc::new(Cell::new(None));
    let told = Rc::clone(&outcome);
    let main = spawn_watched(&reactor, async move { told.set(Some(main.await)) });
    reactor.turn(|| main.get(), busy)?;
    drop(leave);
    match outcome.take() {
        Some(outcome) => Ok(outcome),
        None => panic!("the first task of a reactor panicked"),
    }
}

/// Runs `task`; tells whether it is over, one way or the other.
fn spawn_watched(reactor: &Reactor, task: impl Future<Output = ()> + 'static) -> Rc<Cell<bool>> {
    struct Over(Rc<Cell<bool>>);
    impl Drop for Over {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let over = Rc::new(Cell::new(false));
    let watch = Over(Rc::clone(&over));
    reactor.tasks.spawn(Box::pin(async move {
        let _watch = watch;
        task.await;
    }));
    over
}

/// Drops what is left while there is a reactor to deregister from, and leaves the thread without one.
struct Leave<'a>(&'a Rc<Reactor>);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.tasks.drop_all();
        CURRENT.set(None);
    }
}

/// Runs `task` on this thread's reactor, soon. If it panics, it is dropped and the others go on.
///
/// # Panics
/// Outside of [`run`].
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    Reactor::current().tasks.spawn(Box::pin(task));
}

/// Goes on after the loop has looked at what has happened meanwhile, and behind whom that concerns.
///
/// # Panics
/// Outside of [`run`].
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        let reactor = Reactor::current();
        reactor.yielded.borrow_mut().push(cx.waker().clone());
        Poll::Pending
    })
    .await;
}

/// Says of the task that runs whether its turns are long from the next time it is woken on. A long turn comes behind
/// whoever is ready for a short one, and the loop looks at what has happened after each.
///
/// # Panics
/// Outside of [`run`].
pub fn take_long_turns(long: bool) {
    Reactor::current().tasks.take_long_turns(long);
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
