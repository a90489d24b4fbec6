//! The accounting of places and of the line: against a model, one step at a time, and under threads
//! that race for them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::task::{Wake, Waker};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::line::MOST_AT_ONCE;
use super::*;
use crate::config::QueueConfig;
use crate::model::{Backend, BackendId, ClientAddr, DownFlag, Load};
use crate::pool::Placement;
use crate::pool::testing::snapshot;
use crate::strategy::{self, Parameters};

/// The backends of a file, of which a snapshot may lack some.
struct Pool {
    queue: Arc<Queue>,
    loads: Vec<Arc<Load>>,
    flags: Vec<Arc<DownFlag>>,
    present: Vec<bool>,
    size: u32,
}

impl Pool {
    fn new(count: usize, cap: u32, size: u32) -> Self {
        let queue = Arc::<Queue>::default();
        let load = || {
            let load = Load::new(1).telling(Arc::clone(&queue) as Arc<dyn Freed>);
            load.set_cap(Some(cap));
            Arc::new(load)
        };
        Self {
            loads: (0..count).map(|_| load()).collect(),
            flags: (0..count).map(|_| Arc::default()).collect(),
            present: vec![true; count],
            queue,
            size,
        }
    }

    fn service(&self) -> Arc<Service> {
        Service::new("web".into(), self.snapshot(), Arc::clone(&self.queue))
    }

    fn snapshot(&self) -> Snapshot {
        let backend = |index: usize| {
            let (load, down) = (
                Arc::clone(&self.loads[index]),
                Arc::clone(&self.flags[index]),
            );
            let id = BackendId::new("web", index.to_string());
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
            Arc::new(Backend::new(id, address, 1, load, down).capped(true))
        };
        let backends: Vec<_> = (0..self.loads.len())
            .filter(|&index| self.present[index])
            .map(backend)
            .collect();
        let queue = QueueConfig {
            size: self.size,
            timeout: Duration::from_secs(10),
        };
        let parameters = Parameters::of(self.loads.len());
        snapshot("least-connections", &parameters, backends, queue)
    }
}

fn flow(service: &Service) -> Flow {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    service.flow(ClientAddr::new(address), fastrand::u64(..))
}

/// Joins the line as one who was failed by `skip`.
fn join(service: &Service, skip: &Skip) -> Waiting {
    let snapshot = service.snapshot_in_force();
    let joined = service.queue().join(flow(service), skip.clone(), snapshot);
    joined.unwrap()
}

/// A place while nobody waits, at somebody who is not in `skip`.
fn take(service: &Service, skip: &Skip) -> Lease {
    match service.place(&service.snapshot(), &flow(service), skip) {
        Placement::Taken(_, lease) => lease,
        Placement::Full | Placement::Nobody => panic!("there is room"),
    }
}

fn number(lease: &Lease) -> usize {
    lease.backend().id().name().parse().unwrap()
}

#[derive(Clone, Debug)]
enum Step {
    /// Somebody comes.
    Arrive,
    /// Of those who have a place, this one ends.
    End(usize),
    /// Its backend failed it, and it comes again.
    Fail(usize),
    /// Of those who wait, this one leaves.
    Leave(usize),
    Cap(usize, u32),
    Down(usize, bool),
    Present(usize, bool),
}

const BACKENDS: usize = 3;
const SIZE: usize = 5;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let backend = 0..BACKENDS;
    let step = prop_oneof![
        8 => Just(Step::Arrive),
        5 => any::<usize>().prop_map(Step::End),
        3 => any::<usize>().prop_map(Step::Fail),
        2 => any::<usize>().prop_map(Step::Leave),
        1 => (backend.clone(), 1..4_u32).prop_map(|(at, cap)| Step::Cap(at, cap)),
        1 => (backend.clone(), any::<bool>()).prop_map(|(at, down)| Step::Down(at, down)),
        1 => (backend, any::<bool>()).prop_map(|(at, there)| Step::Present(at, there)),
    ];
    prop::collection::vec(step, 1..120)
}

/// A session as the model sees it.
#[derive(Debug)]
struct Session {
    flow: Flow,
    failed: BTreeSet<usize>,
    stand: Stand,
}

#[derive(Debug)]
enum Stand {
    Waits(Waiting),
    Has(Lease),
}

struct Model {
    pool: Pool,
    service: Arc<Service>,
    caps: [u32; BACKENDS],
    sessions: Vec<Session>,
}

impl Model {
    fn new() -> Self {
        let pool = Pool::new(BACKENDS, 2, SIZE as u32);
        let service = pool.service();
        Self {
            pool,
            service,
            caps: [2; BACKENDS],
            sessions: Vec::new(),
        }
    }

    fn holders(&self, backend: usize) -> u32 {
        let has =
            |it: &&Session| matches!(&it.stand, Stand::Has(lease) if number(lease) == backend);
        self.sessions.iter().filter(has).count() as u32
    }

    fn waiters(&self) -> impl Iterator<Item = &Session> {
        let waits = |it: &&Session| matches!(it.stand, Stand::Waits(_));
        self.sessions.iter().filter(waits)
    }

    /// Whether `session` could ever be served as things are.
    fn may_serve(&self, backend: usize, failed: &BTreeSet<usize>) -> bool {
        let up = self.pool.present[backend] && !self.pool.flags[backend].is_set();
        up && !failed.contains(&backend)
    }

    fn nth(&self, n: usize, wanted: impl Fn(&Stand) -> bool) -> Option<usize> {
        let all: Vec<_> = (0..self.sessions.len())
            .filter(|&at| wanted(&self.sessions[at].stand))
            .collect();
        (!all.is_empty()).then(|| all[n % all.len()])
    }

    fn arrive(&mut self, flow: Flow, mut failed: BTreeSet<usize>) {
        failed.retain(|&backend| self.pool.present[backend]);
        let snapshot = self.service.snapshot_in_force();
        let mut skip = Skip::none();
        for (index, backend) in snapshot.backends.iter().enumerate() {
            if failed.contains(&backend.id().name().parse().unwrap()) {
                skip.insert(index);
            }
        }
        let someone = (0..BACKENDS).any(|backend| self.may_serve(backend, &failed));
        let stand = match self.service.place(&snapshot, &flow, &skip) {
            Placement::Taken(_, lease) => Stand::Has(lease),
            Placement::Nobody => {
                assert!(!someone, "somebody may serve");
                return;
            }
            Placement::Full => match self.service.queue().join(flow, skip, snapshot) {
                Ok(waiting) => Stand::Waits(waiting),
                Err(QueueFull) => {
                    assert_eq!(self.waiters().count(), SIZE);
                    return;
                }
            },
        };
        self.sessions.push(Session {
            flow,
            failed,
            stand,
        });
    }

    fn take(&mut self, step: Step) {
        let before: Vec<_> = self.with_place();
        let has = |stand: &Stand| matches!(stand, Stand::Has(_));
        match step {
            Step::Arrive => self.arrive(flow(&self.service), BTreeSet::new()),
            Step::End(n) => {
                if let Some(at) = self.nth(n, has) {
                    self.sessions.swap_remove(at);
                }
            }
            Step::Fail(n) => {
                if let Some(at) = self.nth(n, has) {
                    let Session {
                        flow,
                        mut failed,
                        stand,
                    } = self.sessions.swap_remove(at);
                    if let Stand::Has(lease) = stand {
                        failed.insert(number(&lease));
                    }
                    self.settle();
                    self.arrive(flow, failed);
                }
            }
            Step::Leave(n) => {
                if let Some(at) = self.nth(n, |stand| !has(stand)) {
                    self.sessions.swap_remove(at);
                }
            }
            Step::Cap(backend, cap) => {
                self.caps[backend] = cap;
                self.pool.loads[backend].set_cap(Some(cap));
                self.service.swap(self.pool.snapshot());
            }
            Step::Down(backend, down) => {
                self.pool.flags[backend].set(down);
                self.service.swap(self.pool.snapshot());
            }
            Step::Present(backend, present) => {
                self.pool.present[backend] = present;
                // Who waits forgets what it met at a backend that left.
                let waits = |it: &&mut Session| matches!(it.stand, Stand::Waits(_));
                for waiter in self.sessions.iter_mut().filter(waits).filter(|_| !present) {
                    waiter.failed.remove(&backend);
                }
                self.service.swap(self.pool.snapshot());
            }
        }
        self.settle();
        self.check(&before);
    }

    fn with_place(&self) -> Vec<u64> {
        let has = |it: &&Session| matches!(it.stand, Stand::Has(_));
        self.sessions
            .iter()
            .filter(has)
            .map(|it| it.flow.sequence)
            .collect()
    }

    /// Hears what became of those who wait.
    fn settle(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for mut session in std::mem::take(&mut self.sessions) {
            if let Stand::Waits(waiting) = &mut session.stand
                && let Poll::Ready(outcome) = waiting.poll(&mut cx)
            {
                let Outcome::Placed(placed) = outcome else {
                    let someone = (0..BACKENDS).any(|it| self.may_serve(it, &session.failed));
                    assert!(!someone, "turned away though somebody may serve");
                    continue;
                };
                let at = &placed.snapshot.backends[placed.index];
                assert_eq!(at.id(), placed.lease.backend().id());
                session.stand = Stand::Has(placed.lease);
            }
            self.sessions.push(session);
        }
    }

    fn check(&self, before: &[u64]) {
        for backend in 0..BACKENDS {
            assert_eq!(self.pool.loads[backend].in_flight(), self.holders(backend));
        }
        for session in &self.sessions {
            let Stand::Has(lease) = &session.stand else {
                continue;
            };
            if before.contains(&session.flow.sequence) {
                continue;
            }
            let backend = number(lease);
            assert!(
                self.holders(backend) <= self.caps[backend],
                "beyond the cap"
            );
            assert!(!session.failed.contains(&backend), "failed there already");
            for older in self
                .waiters()
                .filter(|it| it.flow.sequence < session.flow.sequence)
            {
                assert!(older.failed.contains(&backend), "overtook {older:?}");
            }
        }
        for waiter in self.waiters() {
            let mut own = (0..BACKENDS).filter(|&it| self.may_serve(it, &waiter.failed));
            assert!(own.clone().next().is_some(), "waits for nobody");
            assert!(own.all(|it| self.holders(it) >= self.caps[it]), "forgotten");
        }
        let waiting = self.waiters().count();
        assert!(waiting <= SIZE);
        assert_eq!(self.service.queue().sum().waiting, waiting);
    }
}

proptest! {
    #[test]
    fn places_and_the_line_keep_to_the_model(steps in steps()) {
        let mut model = Model::new();
        for step in steps {
            model.take(step);
        }
        let Model { pool, service, sessions, .. } = model;
        drop(sessions);
        prop_assert!(pool.loads.iter().all(|load| load.in_flight() == 0));
        prop_assert_eq!(service.queue().sum().waiting, 0);
    }
}

/// Long enough for any waiter that was not forgotten.
const PATIENCE: Duration = Duration::from_secs(30);

/// `THREADS` sessions at a time want one of a few places, some leave while they wait, and `disturb`
/// goes on meanwhile.
fn storm(pool: &Pool, most: u32, disturb: impl Fn(&Service, usize) + Sync) {
    const THREADS: u64 = 6;
    const EACH: usize = 2_000;
    let service = pool.service();
    let held: Vec<_> = pool.loads.iter().map(|_| AtomicUsize::new(0)).collect();
    let session = |random: &mut fastrand::Rng| {
        let flow = flow(&service);
        let snapshot = service.snapshot_in_force();
        let lease = match service.place(&snapshot, &flow, &Skip::none()) {
            Placement::Taken(_, lease) => lease,
            Placement::Nobody => return,
            Placement::Full => {
                let joined = service.queue().join(flow, Skip::none(), snapshot);
                let mut waiting = joined.unwrap();
                if random.u8(..) < 32 {
                    return;
                }
                let outcome = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .unwrap()
                    .block_on(async {
                        let served = std::future::poll_fn(|cx| waiting.poll(cx));
                        tokio::time::timeout(PATIENCE, served).await
                    });
                match outcome.expect("a waiter was forgotten") {
                    Outcome::Placed(placed) => placed.lease,
                    Outcome::Nobody => return,
                }
            }
        };
        let held = &held[number(&lease)];
        let others = held.fetch_add(1, Ordering::SeqCst);
        assert!(others < most as usize, "beyond the cap");
        if random.bool() {
            thread::yield_now();
        }
        held.fetch_sub(1, Ordering::SeqCst);
    };
    thread::scope(|threads| {
        let storm: Vec<_> = (0..THREADS)
            .map(|seed| {
                let session = &session;
                threads.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    (0..EACH).for_each(|_| session(&mut random));
                })
            })
            .collect();
        let mut round = 0;
        while !storm.iter().all(|thread| thread.is_finished()) {
            disturb(&service, round);
            round += 1;
            thread::yield_now();
        }
    });
    assert!(pool.loads.iter().all(|load| load.in_flight() == 0));
    assert_eq!(service.queue().sum().waiting, 0);
}

#[test]
fn under_threads_the_cap_is_exact_and_nobody_is_forgotten() {
    storm(&Pool::new(2, 1, 1_000), 1, |_, _| {});
}

#[test]
fn caps_that_change_under_threads_are_kept_and_nobody_is_forgotten() {
    let pool = Pool::new(2, 3, 1_000);
    storm(&pool, 3, |service, round| {
        let cap = 1 + round as u32 % 3;
        pool.loads.iter().for_each(|load| load.set_cap(Some(cap)));
        service.swap(pool.snapshot());
    });
}

#[test]
fn backends_that_come_and_go_under_threads_leave_nobody_forgotten() {
    let pool = Pool::new(3, 1, 1_000);
    storm(&pool, 1, |service, round| {
        // One of the three is always there.
        pool.flags[round % 3].set(round % 2 == 0);
        pool.flags[(round + 1) % 3].set(false);
        service.swap(pool.snapshot());
    });
}

#[test]
fn a_place_that_was_sent_to_one_who_left_goes_to_the_next() {
    let pool = Pool::new(1, 1, 10);
    let service = pool.service();
    let none = Skip::none();
    let first = take(&service, &none);
    let (second, mut third) = (join(&service, &none), join(&service, &none));
    // Sent to the second, which never hears of it.
    drop(first);
    drop(second);
    let mut cx = Context::from_waker(Waker::noop());
    let placed = third.poll(&mut cx);
    assert!(
        matches!(placed, Poll::Ready(Outcome::Placed(_))),
        "{placed:?}"
    );
    assert_eq!(pool.loads[0].in_flight(), 1);
    drop(placed);
    assert_eq!(pool.loads[0].in_flight(), 0);
}

#[test]
fn sessions_that_came_before_the_cap_make_room_for_those_who_wait_since() {
    let pool = Pool::new(1, 1, 10);
    pool.loads[0].set_cap(None);
    let service = pool.service();
    let none = Skip::none();
    let mut before: Vec<_> = (0..3).map(|_| take(&service, &none)).collect();
    pool.loads[0].set_cap(Some(2));
    service.swap(pool.snapshot());
    let mut waiting = join(&service, &none);
    let mut cx = Context::from_waker(Waker::noop());
    before.pop();
    assert!(waiting.poll(&mut cx).is_pending(), "two are left");
    before.pop();
    assert!(waiting.poll(&mut cx).is_ready());
}

#[test]
fn a_line_outlives_its_service_and_is_served_by_the_next_of_that_name() {
    let pool = Pool::new(1, 1, 10);
    let old = pool.service();
    let none = Skip::none();
    let held = take(&old, &none);
    // Both cursors begin at 0.
    let mut first = join(&old, &none);
    let new = pool.service();
    drop(old);
    flow(&new);
    let mut second = join(&new, &none);
    drop(held);
    let mut cx = Context::from_waker(Waker::noop());
    let placed = first.poll(&mut cx);
    assert!(
        matches!(placed, Poll::Ready(Outcome::Placed(_))),
        "{placed:?}"
    );
    assert!(second.poll(&mut cx).is_pending());
    drop(placed);
    assert!(matches!(
        second.poll(&mut cx),
        Poll::Ready(Outcome::Placed(_))
    ));
}

/// Counts how often it is asked.
#[derive(Debug)]
struct Counted {
    strategy: Box<dyn strategy::Strategy>,
    asked: Arc<AtomicUsize>,
}

impl strategy::Strategy for Counted {
    fn pick(&self, flow: &Flow, backends: &[Arc<Backend>], skip: &Skip) -> Option<usize> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.strategy.pick(flow, backends, skip)
    }
}

#[test]
fn a_long_line_of_those_who_were_failed_costs_a_place_no_more_than_a_short_one() {
    let pool = Pool::new(2, 1, 1_000);
    let asked = Arc::new(AtomicUsize::new(0));
    let mut snapshot = pool.snapshot();
    snapshot.strategy = Box::new(Counted {
        strategy: snapshot.strategy,
        asked: Arc::clone(&asked),
    });
    let service = Service::new("web".into(), snapshot, Arc::clone(&pool.queue));
    let mut failed = Skip::none();
    failed.insert(0);
    let held = take(&service, &failed);
    let mut line: Vec<_> = (0..500).map(|_| join(&service, &failed)).collect();
    asked.store(0, Ordering::Relaxed);
    drop(held);
    let mut cx = Context::from_waker(Waker::noop());
    let placed = line[0].poll(&mut cx);
    assert!(placed.is_ready());
    assert!(line[1..].iter_mut().all(|it| it.poll(&mut cx).is_pending()));
    // For the first, and for the second.
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    drop(placed);
    assert!(line[1].poll(&mut cx).is_ready());
}

#[test]
fn room_for_many_is_given_to_all_of_them() {
    let many = 3 * MOST_AT_ONCE;
    let pool = Pool::new(1, 1, 1_000);
    let service = pool.service();
    let none = Skip::none();
    let _held = take(&service, &none);
    let mut line: Vec<_> = (0..=many).map(|_| join(&service, &none)).collect();
    pool.loads[0].set_cap(Some(1 + many as u32));
    service.swap(pool.snapshot());
    let mut cx = Context::from_waker(Waker::noop());
    let placed: Vec<_> = line.iter_mut().map(|it| it.poll(&mut cx)).collect();
    assert!(placed[..many].iter().all(Poll::is_ready));
    assert!(placed[many].is_pending());
}

#[test]
fn those_whom_a_backend_has_failed_that_is_gone_stand_where_they_came() {
    let mut pool = Pool::new(2, 1, 1_000);
    let service = pool.service();
    let (none, mut failed) = (Skip::none(), Skip::none());
    failed.insert(0);
    let held = take(&service, &failed);
    let _other = take(&service, &none);
    let mut line: Vec<_> = [&none, &failed, &failed, &none]
        .map(|skip| join(&service, skip))
        .into();
    pool.present[0] = false;
    service.swap(pool.snapshot());
    let mut next = held;
    let mut cx = Context::from_waker(Waker::noop());
    while !line.is_empty() {
        drop(next);
        let Poll::Ready(Outcome::Placed(placed)) = line.remove(0).poll(&mut cx) else {
            panic!("it is its turn");
        };
        assert!(line.iter_mut().all(|it| it.poll(&mut cx).is_pending()));
        next = placed.lease;
    }
}

/// Notes whether the line was free when it was woken.
struct Woken {
    queue: Arc<Queue>,
    was_free: AtomicBool,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        let is_free = self.queue.line.try_lock().is_ok();
        self.was_free.store(is_free, Ordering::SeqCst);
    }
}

#[test]
fn nobody_is_woken_under_the_lock() {
    let pool = Pool::new(1, 1, 10);
    let service = pool.service();
    let held = take(&service, &Skip::none());
    let mut waiting = join(&service, &Skip::none());
    let woken = Arc::new(Woken {
        queue: Arc::clone(&pool.queue),
        was_free: AtomicBool::new(false),
    });
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    assert!(waiting.poll(&mut cx).is_pending());
    drop(held);
    assert!(woken.was_free.load(Ordering::SeqCst));
    assert!(waiting.poll(&mut cx).is_ready());
}
