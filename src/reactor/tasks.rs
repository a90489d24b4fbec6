//! Who runs, and in which order: first come, first served, but long turns one by one and behind the short.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use slab::Slab;

use super::Reactor;

type Running = Pin<Box<dyn Future<Output = ()>>>;

/// The tasks of one thread.
pub(super) struct Tasks {
    all: RefCell<Slab<Task>>,
    ready: RefCell<VecDeque<u32>>,
    /// The same of those whose turns are long.
    ready_long: RefCell<VecDeque<u32>>,
    /// Who runs.
    running: Cell<Option<u32>>,
    home: Arc<Home>,
}

struct Task {
    /// With what wakes it; not there while it runs.
    waiting: Option<(Running, Waker)>,
    alarm: Arc<Alarm>,
}

/// What wakes a task, from any thread.
struct Alarm {
    place: u32,
    /// It is in the line already, or over for good.
    rung: AtomicBool,
    /// Its turns are long. Only its own thread asks.
    long: AtomicBool,
    home: Arc<Home>,
}

/// Where other threads leave word.
struct Home {
    /// Each task is in it once, unless it has ended.
    woken: Mutex<Vec<u32>>,
    /// Somebody has left word since it was last collected.
    rung: AtomicBool,
    bell: OwnedFd,
}

impl Tasks {
    /// Nobody yet. Whoever writes to `bell` ends the thread's sleep.
    pub(super) fn new(bell: OwnedFd) -> Self {
        Self {
            all: RefCell::default(),
            ready: RefCell::default(),
            ready_long: RefCell::default(),
            running: Cell::default(),
            home: Arc::new(Home {
                woken: Mutex::default(),
                rung: AtomicBool::new(false),
                bell,
            }),
        }
    }

    /// One more, which is ready.
    pub(super) fn spawn(&self, running: Running) {
        let mut all = self.all.borrow_mut();
        let entry = all.vacant_entry();
        // No process has as many tasks.
        let place = entry.key() as u32;
        let alarm = Arc::new(Alarm {
            place,
            rung: AtomicBool::new(true),
            long: AtomicBool::new(false),
            home: Arc::clone(&self.home),
        });
        entry.insert(Task {
            waiting: Some((running, Waker::from(Arc::clone(&alarm)))),
            alarm,
        });
        self.ready.borrow_mut().push_back(place);
    }

    /// Whether all wait for something.
    pub(super) fn nobody_is_ready(&self) -> bool {
        self.ready.borrow().is_empty() && self.ready_long.borrow().is_empty()
    }

    /// Lets tasks run, in the order in which they became ready, and so many at most; then one of those whose turns
    /// are long.
    pub(super) fn run(&self, most: usize) {
        for (line, most) in [(&self.ready, most), (&self.ready_long, 1)] {
            for _ in 0..most {
                let Some(place) = line.borrow_mut().pop_front() else {
                    break;
                };
                self.running.set(Some(place));
                self.run_one(place as usize);
                self.running.set(None);
            }
        }
    }

    /// Which line whoever runs belongs to from its next turn on.
    pub(super) fn take_long_turns(&self, long: bool) {
        if let Some(place) = self.running.get()
            && let Some(task) = self.all.borrow().get(place as usize)
        {
            task.alarm.long.store(long, Ordering::Relaxed);
        }
    }

    fn line_up(&self, place: u32, long: bool) {
        let line = if long { &self.ready_long } else { &self.ready };
        line.borrow_mut().push_back(place);
    }

    fn run_one(&self, place: usize) {
        let waiting = self.all.borrow_mut().get_mut(place).and_then(|task| {
            // Whoever wakes it from here on means another turn.
            task.alarm.rung.swap(false, Ordering::AcqRel);
            task.waiting.take()
        });
        let Some((mut running, waker)) = waiting else {
            // It was over when it was woken, in its last turn.
            return;
        };
        let mut cx = Context::from_waker(&waker);
        let turn = catch_unwind(AssertUnwindSafe(|| running.as_mut().poll(&mut cx)));
        if let Ok(Poll::Pending) = turn {
            self.all.borrow_mut()[place].waiting = Some((running, waker));
            return;
        }
        // What it holds may spawn and wake when it is let go of.
        drop(catch_unwind(AssertUnwindSafe(|| drop(running))));
        // Whoever wakes it right now wakes the next one in its place, which takes a turn for nothing.
        let over = self.all.borrow_mut().remove(place);
        over.alarm.rung.store(true, Ordering::Relaxed);
    }

    /// Takes in who was woken by other threads.
    pub(super) fn collect(&self) {
        if self.home.rung.load(Ordering::Relaxed) && self.home.rung.swap(false, Ordering::AcqRel) {
            let all = self.all.borrow();
            for place in self.home.woken().drain(..) {
                let task = all.get(place as usize);
                let is_long = |it: &Task| it.alarm.long.load(Ordering::Relaxed);
                self.line_up(place, task.is_some_and(is_long));
            }
        }
    }

    /// Drops all there are, and those that they spawn meanwhile, for a few rounds: a panic in one of them is as
    /// little to the others as in its turn.
    pub(super) fn drop_all(&self) {
        for _ in 0..MOST_ROUNDS {
            let all = std::mem::take(&mut *self.all.borrow_mut());
            if all.is_empty() {
                return;
            }
            for (_, task) in all {
                drop(catch_unwind(AssertUnwindSafe(|| drop(task))));
            }
        }
    }
}

/// Whatever spawns when it is dropped, and spawns what does so too, is left alone after so many rounds.
const MOST_ROUNDS: usize = 8;

impl Home {
    fn woken(&self) -> MutexGuard<'_, Vec<u32>> {
        // Numbers are whole whoever panics.
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave_word(&self, place: u32) {
        self.woken().push(place);
        // Once is enough until it was heard. It cannot fail: the descriptor is the loop's own, and its count has
        // room for longer than any process runs.
        if !self.rung.swap(true, Ordering::AcqRel)
            && let Err(error) = rustix::io::write(&self.bell, &1_u64.to_ne_bytes())
        {
            tracing::error!(%error, "cannot wake a worker");
        }
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let here = super::CURRENT.try_with(|current| {
            let current = current.borrow();
            let own = current.as_ref().map(|it: &Rc<Reactor>| &it.tasks);
            match own.filter(|own| Arc::ptr_eq(&own.home, &self.home)) {
                Some(own) => own.line_up(self.place, self.long.load(Ordering::Relaxed)),
                None => self.home.leave_word(self.place),
            }
        });
        // A thread that is ending, and has no reactor any more.
        if here.is_err() {
            self.home.leave_word(self.place);
        }
    }
}
