//! One worker's accept loop over one listener.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{Command, Peers, register, serve};
use crate::admission::Thrift;
use crate::net::{Accepted, Listener, Reserve};
use crate::pool::{Admission, Door, Permits, Turn};
use crate::reactor::{sleep, timeout_at, yield_now};
use crate::session::{Client, Context};

/// The most clients taken in a row before sessions get their turn …
const BATCH: usize = 16;
/// … and where they have had to wait: a rush has built up then, and sessions are not to wait for all of it.
const LATE_BATCH: usize = 4;
/// How long accepting rests when the process or the machine is out of something.
const BACK_OFF: Duration = Duration::from_millis(100);
/// How long a listener waits for room in a service that may not be its own any more.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How a listener closes.
#[derive(Debug)]
pub(super) struct Closing {
    /// At the latest, whoever still waits for room.
    pub(super) until: Instant,
    /// Dropped when it is.
    pub(super) done: TaskTrackerToken,
}

/// Accepts clients and sees them served.
pub(super) struct Acceptor {
    pub(super) route: Door,
    pub(super) peers: Peers,
    pub(super) permits: &'static Permits,
    pub(super) context: Rc<Context>,
}

/// What came of a batch.
struct Taken {
    /// Clients, and those of them who had left.
    clients: u32,
    gone: u32,
    ended: Batch,
}

/// Why a batch ended.
enum Batch {
    /// The queue is empty.
    Empty,
    /// There may be more.
    Full,
    /// There may be, and it is too soon for them by so much.
    Early(Duration),
    /// Out of descriptors or memory.
    Exhausted(io::Error),
}

impl Acceptor {
    /// Accepts until the listener is to close, then until its queue is empty.
    pub(super) async fn run(
        mut self,
        mut listener: Listener,
        mut closing: oneshot::Receiver<Closing>,
    ) {
        // Clients had to wait, so some of them may have left: until the queue has been empty since.
        let mut behind = false;
        let mut thrift = Thrift::new(Instant::now());
        let closing = loop {
            let paused = tokio::select! {
                biased;
                closing = &mut closing => break closing,
                paused = self.wait(&listener) => paused,
            };
            behind |= paused;
            let began = Instant::now();
            let taken = self.batch(&listener, behind);
            let now = Instant::now();
            let in_vain = taken.gone + self.route.turned_away();
            let rest = thrift.spend(taken.clients, now - began, in_vain, now);
            match taken.ended {
                Batch::Empty => behind = false,
                // It rests below.
                Batch::Full if rest.is_some() => {}
                Batch::Full => yield_now().await,
                // In pieces, because a reload may change what is too soon.
                Batch::Early(by) => {
                    behind = true;
                    sleep(by.min(BACK_OFF)).await;
                }
                Batch::Exhausted(error) => self.back_off(&error).await,
            }
            // Too many have come to nothing for those who are served.
            if let Some(rest) = rest {
                behind = true;
                // Others have not spent their part yet.
                let aside = listener.unregister();
                sleep(rest).await;
                listener = register(aside, self.peers.own);
            }
        };
        // Only a worker that ends takes the other end away, and the clients with it.
        if let Ok(Closing { until, done }) = closing {
            self.empty(&listener, until).await;
            drop(listener);
            drop(done);
        }
    }

    /// Waits for a client and for room; tells whether room had to be waited for.
    async fn wait(&self, listener: &Listener) -> bool {
        listener.ready().await;
        let permits = self.permits();
        if permits.has_room() {
            return false;
        }
        // Or until it is time to see whether a reload has led the listener to another service.
        drop(timeout_at(Instant::now() + LOOK_AGAIN, permits.acquire()).await);
        true
    }

    /// Whose permits clients take: those of all services, or some of them that are this service's.
    fn permits(&self) -> &'static Permits {
        let service = self.route.service();
        let snapshot = service.snapshot();
        let own = snapshot.admission.as_ref().and_then(|it| it.permits());
        own.unwrap_or(self.permits)
    }

    /// Takes clients while there are some and there is room for them.
    fn batch(&mut self, listener: &Listener, behind: bool) -> Taken {
        let mut taken = Taken {
            clients: 0,
            gone: 0,
            ended: Batch::Full,
        };
        taken.ended = self.take(listener, behind, &mut taken);
        taken
    }

    fn take(&mut self, listener: &Listener, behind: bool, taken: &mut Taken) -> Batch {
        self.route.renew();
        let service = self.route.service();
        let snapshot = service.snapshot();
        let admission = snapshot.admission.as_deref();
        let own = admission.and_then(Admission::permits);
        let permits = own.unwrap_or(self.permits);
        let shortage = self.context.shortage;
        let most = if behind { LATE_BATCH } else { BATCH };
        for _ in 0..most {
            // The permit comes first and goes back if nobody is there: an idle listener hoards none.
            let Some(permit) = permits.try_acquire() else {
                return Batch::Full;
            };
            let reserve = match shortage.reserve() {
                Ok(reserve) => reserve,
                Err(error) => return Batch::Exhausted(error),
            };
            let turns = match self.take_turn(admission) {
                Ok(turns) => turns,
                Err(early) => return Batch::Early(early),
            };
            match listener.accept(behind) {
                Accepted::Client(socket, address) => {
                    taken.clients += 1;
                    let (seat, reserve) = reserve.map_or((None, None), Reserve::parts);
                    let socket = match socket.placed(shortage, seat) {
                        Ok(socket) => socket,
                        Err(error) => {
                            self.give_back(admission, turns);
                            return Batch::Exhausted(error);
                        }
                    };
                    if reserve.is_some() {
                        shortage.was_spared();
                    }
                    let [of_all, own] = turns;
                    self.permits.accepted(of_all);
                    if let Some(admission) = admission {
                        admission.accepted(own);
                    }
                    let (worker, seat) = self.peers.seat();
                    let client = Client {
                        socket,
                        address,
                        permit,
                        reserve,
                    };
                    if worker == self.peers.own {
                        serve(&self.context, self.route.clone(), client, seat);
                    } else {
                        self.hand_over(worker, client, seat);
                    }
                }
                // Whoever has left takes nobody's turn.
                Accepted::Gone => {
                    taken.clients += 1;
                    taken.gone += 1;
                    self.give_back(admission, turns);
                }
                Accepted::Empty => {
                    self.give_back(admission, turns);
                    return Batch::Empty;
                }
                Accepted::Exhausted(error) => {
                    self.give_back(admission, turns);
                    return Batch::Exhausted(error);
                }
            }
        }
        Batch::Full
    }

    /// One client may be taken now, by the rate of the process and by that of the service.
    fn take_turn(&self, admission: Option<&Admission>) -> Result<[Turn; 2], Duration> {
        let all = self.permits.take_turn()?;
        let own = admission.map_or(Ok(Turn::Free), |it| it.take_turn(Instant::now()));
        if own.is_err() {
            self.permits.give_back(all);
        }
        Ok([all, own?])
    }

    /// Nobody was there to take.
    fn give_back(&self, admission: Option<&Admission>, [all, own]: [Turn; 2]) {
        self.permits.give_back(all);
        if let Some(admission) = admission {
            admission.give_back(own);
        }
    }

    /// Gives a client to a less loaded worker, which it is counted towards already.
    fn hand_over(&self, worker: usize, client: Client, seat: super::Seat) {
        let route = self.route.route();
        match self.peers.inboxes[worker].send(Command::Serve { route, client }) {
            // The other worker takes the seat over.
            Ok(()) => std::mem::forget(seat),
            // Only a stop closes inboxes, and it ends this session too.
            Err(_) => tracing::debug!(worker, "worker is gone"),
        }
    }

    /// Says that the process or the machine is out of something, and waits for better times.
    async fn back_off(&self, error: &io::Error) {
        self.peers.own().accept_failed();
        self.context.shortage.meet(error);
        sleep(BACK_OFF).await;
    }

    /// Serves those who are in the queue of a listener that lets nobody new in.
    async fn empty(&mut self, listener: &Listener, until: Instant) {
        while Instant::now() < until {
            match self.batch(listener, true).ended {
                Batch::Empty => return,
                Batch::Full => {
                    // A reload may change whose room it is.
                    let look_again = until.min(Instant::now() + LOOK_AGAIN);
                    if let Some(permit) = timeout_at(look_again, self.permits().acquire()).await {
                        drop(permit);
                        yield_now().await;
                    }
                }
                Batch::Early(by) => sleep(by.min(BACK_OFF)).await,
                Batch::Exhausted(error) => self.back_off(&error).await,
            }
        }
    }
}
