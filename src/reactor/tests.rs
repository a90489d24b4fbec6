//! The loop with real descriptors, threads and times.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::*;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn reacting<T: 'static>(main: impl Future<Output = T> + 'static) -> T {
    run(main, &AtomicU64::new(0)).unwrap()
}

/// Two ends of a connection.
fn pair() -> (OwnedFd, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (near, _) = listener.accept().unwrap();
    near.set_nonblocking(true).unwrap();
    (near.into(), far)
}

async fn readable<D: Descriptor>(source: &Source<D>) {
    poll_fn(|cx| source.poll_readable(cx)).await;
}

/// Whether a task has heard that there is something to read.
fn listened_to(near: OwnedFd) -> Rc<Cell<bool>> {
    let source = Source::both_ways(near).unwrap();
    let heard = Rc::new(Cell::new(false));
    let told = Rc::clone(&heard);
    spawn(async move {
        readable(&source).await;
        told.set(true);
    });
    heard
}

async fn is_readable_now<D: Descriptor>(source: &Source<D>) -> bool {
    // Which looks at what has happened.
    yield_now().await;
    poll_fn(|cx| Poll::Ready(source.poll_readable(cx).is_ready())).await
}

#[test]
fn tasks_run_in_the_order_in_which_they_become_ready() {
    let order = reacting(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        for name in ["a", "b", "c"] {
            let order = Rc::clone(&order);
            spawn(async move {
                for round in 0..2 {
                    order.borrow_mut().push((round, name));
                    yield_now().await;
                }
            });
        }
        for _ in 0..4 {
            yield_now().await;
        }
        order.take()
    });
    let expected = [(0, "a"), (0, "b"), (0, "c"), (1, "a"), (1, "b"), (1, "c")];
    assert_eq!(order, expected);
}

#[test]
fn whoever_always_has_something_to_do_does_not_keep_others_from_hearing() {
    reacting(async {
        let (near, mut far) = pair();
        let source = Source::both_ways(near).unwrap();
        spawn(async {
            loop {
                yield_now().await;
            }
        });
        far.write_all(b"x").unwrap();
        readable(&source).await;
    });
}

#[test]
fn long_turns_come_one_by_one_and_behind_the_short() {
    let order = reacting(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        for (name, long) in [("a", true), ("b", false), ("c", true), ("d", false)] {
            let order = Rc::clone(&order);
            spawn(async move {
                take_long_turns(long);
                for _ in 0..2 {
                    // Ready at once, and in the line again.
                    again().await;
                    order.borrow_mut().push(name);
                }
            });
        }
        while order.borrow().len() < 8 {
            yield_now().await;
        }
        order.take()
    });
    assert_eq!(order, ["b", "d", "b", "d", "a", "c", "a", "c"]);
}

#[test]
fn between_two_long_turns_the_loop_hears_what_has_happened() {
    reacting(async {
        let (near, mut far) = pair();
        let heard = listened_to(near);
        take_long_turns(true);
        again().await;
        far.write_all(b"x").unwrap();
        again().await;
        assert!(heard.get());
    });
}

/// Has the task line up anew at once, as one that has more to do.
async fn again() {
    let mut waited = false;
    poll_fn(|cx| {
        if waited {
            return Poll::Ready(());
        }
        waited = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn another_thread_wakes_a_task_that_sleeps() {
    let (ask, asked) = mpsc::channel::<oneshot::Sender<usize>>();
    let other = thread::spawn(move || {
        for (number, answer) in asked.into_iter().enumerate() {
            answer.send(number).unwrap();
        }
    });
    reacting(async move {
        for number in 0..5_000 {
            let (answer, answered) = oneshot::channel();
            ask.send(answer).unwrap();
            assert_eq!(answered.await.unwrap(), number);
        }
    });
    other.join().unwrap();
}

#[test]
fn no_word_of_other_threads_is_lost() {
    let heard = reacting(async {
        let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
        let others = [0, 1, 2].map(|_| {
            let send = send.clone();
            thread::spawn(move || (0..10_000).for_each(|number| send.send(number).unwrap()))
        });
        drop(send);
        let mut heard = 0;
        while receive.recv().await.is_some() {
            heard += 1;
        }
        others.into_iter().for_each(|other| other.join().unwrap());
        heard
    });
    assert_eq!(heard, 30_000);
}

#[test]
fn times_come_in_their_order_and_never_early() {
    let order = reacting(async {
        let order = Rc::new(RefCell::new(Vec::new()));
        let begun = Instant::now();
        for millis in [30, 10, 20, 10] {
            let order = Rc::clone(&order);
            spawn(async move {
                sleep(Duration::from_millis(millis)).await;
                assert!(begun.elapsed() >= Duration::from_millis(millis));
                order.borrow_mut().push(millis);
            });
        }
        sleep(Duration::from_millis(60)).await;
        order.take()
    });
    assert_eq!(order, [10, 10, 20, 30]);
}

#[test]
fn a_timeout_is_what_comes_first() {
    reacting(async {
        let soon = Instant::now() + Duration::from_millis(5);
        assert_eq!(timeout_at(soon, std::future::pending::<()>()).await, None);
        assert_eq!(timeout_at(soon + PATIENCE, async { 7 }).await, Some(7));
        assert!(Reactor::current().timers.next().is_none());
    });
}

#[test]
fn readiness_stays_until_a_call_has_found_otherwise() {
    reacting(async {
        let (near, mut far) = pair();
        let source = Source::both_ways(near).unwrap();
        assert!(!is_readable_now(&source).await);
        far.write_all(b"a").unwrap();
        readable(&source).await;
        assert!(is_readable_now(&source).await);
        source.drained();
        assert!(!is_readable_now(&source).await);
        far.write_all(b"b").unwrap();
        readable(&source).await;
        assert!(!source.is_read_closed());
        source.drained();
        drop(far);
        readable(&source).await;
        source.drained();
        // What has closed is closed for good.
        assert!(source.is_read_closed() && is_readable_now(&source).await);
    });
}

#[test]
fn a_place_that_is_given_anew_hears_nothing_of_who_had_it() {
    reacting(async {
        let (near, mut far) = pair();
        // As in a child of this process that has not closed its descriptors yet.
        let copy = near.try_clone().unwrap();
        let first = Source::both_ways(near).unwrap();
        let place = first.place();
        drop(first);
        let (near, mut other_far) = pair();
        let second = Source::both_ways(near).unwrap();
        assert_eq!(second.place(), place);
        far.write_all(b"x").unwrap();
        assert!(!is_readable_now(&second).await);
        other_far.write_all(b"y").unwrap();
        readable(&second).await;
        drop(copy);
    });
}

#[test]
fn a_shared_descriptor_is_left_alone_once_it_is_dropped() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let shared = Arc::new(OwnedFd::from(listener));
    reacting(async move {
        let source = Source::readable(Arc::clone(&shared)).unwrap();
        let _client = TcpStream::connect(address).unwrap();
        readable(&source).await;
        drop(source);
        // It could not be added while it is in.
        let again = Source::readable(shared).unwrap();
        readable(&again).await;
    });
}

#[test]
fn whoever_is_free_learns_of_a_client_while_another_who_shares_the_listener_is_busy() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let shared = Arc::new(OwnedFd::from(listener));
    let (watching, watched) = mpsc::channel();
    let (over, all_is_over) = mpsc::channel::<()>();
    let busy = Arc::clone(&shared);
    let busy = thread::spawn(move || {
        reacting(async move {
            let source = Source::readable(busy).unwrap();
            watching.send(()).unwrap();
            // All of its thread waits.
            all_is_over.recv_timeout(PATIENCE).unwrap();
            rustix::net::accept(source.get_ref()).unwrap_err()
        })
    });
    watched.recv_timeout(PATIENCE).unwrap();
    reacting(async move {
        let source = Source::readable(shared).unwrap();
        let _client = TcpStream::connect(address).unwrap();
        readable(&source).await;
        drop(rustix::net::accept(source.get_ref()).unwrap());
    });
    over.send(()).unwrap();
    assert_eq!(busy.join().unwrap(), rustix::io::Errno::AGAIN);
}

#[test]
fn a_descriptor_that_cannot_be_watched_comes_back() {
    reacting(async {
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        let (back, error) = Source::readable(OwnedFd::from(file)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(rustix::fs::fstat(&back).is_ok());
    });
}

#[test]
fn a_panic_ends_one_task_and_lets_go_of_what_it_held() {
    reacting(async {
        let (held, let_go) = oneshot::channel::<()>();
        spawn(async move {
            let _held = held;
            yield_now().await;
            panic!("as it is meant to in this test");
        });
        assert!(let_go.await.is_err());
        yield_now().await;
    });
}

#[test]
fn what_still_runs_at_the_end_is_dropped_with_its_descriptors() {
    let dropped = Arc::new(AtomicUsize::new(0));
    struct Count(Arc<AtomicUsize>);
    impl Drop for Count {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let counted = Arc::clone(&dropped);
    let (near, far) = pair();
    reacting(async move {
        let source = Source::both_ways(near).unwrap();
        let count = Count(Arc::clone(&counted));
        spawn(async move {
            let _count = count;
            // Whoever is dropped may still spawn; that one goes too.
            let more = Count(counted);
            struct Spawns(Option<Count>);
            impl Drop for Spawns {
                fn drop(&mut self) {
                    let more = self.0.take();
                    spawn(async move {
                        let _more = more;
                        std::future::pending::<()>().await;
                    });
                }
            }
            let _spawns = Spawns(Some(more));
            readable(&source).await;
        });
        yield_now().await;
    });
    assert_eq!(dropped.load(Ordering::Relaxed), 2);
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(std::io::Read::read(&mut &far, &mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_thread_may_have_one_reactor_after_another() {
    for number in 0..3 {
        assert_eq!(reacting(async move { number }), number);
    }
}

#[test]
fn whoever_yields_goes_on_behind_what_has_happened_meanwhile() {
    reacting(async {
        let (near, mut far) = pair();
        let heard = listened_to(near);
        yield_now().await;
        far.write_all(b"x").unwrap();
        yield_now().await;
        yield_now().await;
        assert!(heard.get());
    });
}

#[test]
fn a_panic_of_what_is_dropped_at_the_end_is_nothing_to_the_others() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("as it is meant to in this test");
        }
    }
    let (held, let_go) = oneshot::channel::<()>();
    reacting(async move {
        let panics = Panics;
        spawn(async move {
            let _panics = panics;
            std::future::pending::<()>().await;
        });
        spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        yield_now().await;
    });
    assert!(let_go.blocking_recv().is_err());
    assert_eq!(reacting(async { 1 }), 1);
}

#[test]
fn sleep_is_not_counted_as_being_busy() {
    let busy = AtomicU64::new(0);
    let slept = Duration::from_millis(300);
    run(async move { sleep(slept).await }, &busy).unwrap();
    assert!(Duration::from_nanos(busy.load(Ordering::Relaxed)) < slept);
}
