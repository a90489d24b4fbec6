//! Alerts: a thread of its own that watches the events, gathers what each `[[alert]]` is about, and
//! delivers it. Nothing here can delay control, let alone a byte: events come over the bus that
//! drops the oldest for a watcher that lags, and of each alert one message at a time is on its way
//! while a bounded number of notices gathers for the next.
//!
//! Follow an event: [`watch`] decides what there is to tell of it and has each [`notice`] drafted ([`drafting`]),
//! [`outbox`] holds them until they may go, [`message`] is what is said, in the words of [`wording`], and
//! [`delivery`] tries until it is said, over [`webhook`] or by [`exec`].

mod delivery;
mod drafting;
mod exec;
mod message;
mod notice;
mod outbox;
mod reading;
mod watch;
mod webhook;
mod wording;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::runtime;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{Notify, broadcast, oneshot};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{sleep_until, timeout};

use self::delivery::{Delivered, deliver};
use self::drafting::Moment;
use self::message::Message;
use self::outbox::{Outbox, Parcel};
use self::watch::Watch;
use super::Event;
use super::inspect::time;
use crate::api;
use crate::config::AlertConfig;
use crate::runner::Runner;
use crate::telemetry::millis;

/// What control holds of the alerts.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    desk: Option<Desk>,
    counts: Arc<Counts>,
    /// Told when events were missed.
    behind: Arc<Notify>,
    /// Who starts programs.
    runner: Option<Runner>,
}

/// The thread, while there is one.
#[derive(Debug)]
struct Desk {
    /// What is to be told, and where to. The thread ends when this goes.
    alerts: tokio::sync::watch::Sender<Vec<Arc<AlertConfig>>>,
    ended: oneshot::Receiver<()>,
}

/// Alerts since the start.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    failed: AtomicU64,
    /// By name, those whose last message was lost or lacked something.
    lost: Mutex<BTreeMap<Arc<str>, api::LostAlert>>,
}

impl Counts {
    fn lost(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, api::LostAlert>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alerts {
    /// None yet. Programs are started by `runner`.
    pub(super) fn new(runner: Option<Runner>) -> Self {
        Self {
            runner,
            ..Self::default()
        }
    }

    /// Takes over what a configuration says. The thread starts with the first alert.
    pub(super) fn configure(
        &mut self,
        alerts: &[AlertConfig],
        watch: impl FnOnce() -> broadcast::Receiver<Event>,
    ) {
        let alerts: Vec<_> = alerts.iter().cloned().map(Arc::new).collect();
        match &self.desk {
            Some(desk) => {
                // Fails only once the thread has panicked, which the log has told of.
                let _ = desk.alerts.send(alerts);
            }
            None if alerts.is_empty() => {}
            None => {
                let post = Post {
                    host: rustix::system::uname().nodename().to_string_lossy().into(),
                    runner: self.runner.clone(),
                    counts: Arc::clone(&self.counts),
                };
                match start(alerts, watch(), Arc::clone(&self.behind), post) {
                    Ok(desk) => self.desk = Some(desk),
                    Err(error) => tracing::error!(%error, "no alerts: their thread cannot start"),
                }
            }
        }
    }

    /// Waits until events were missed: then alerts want to know how everything stands. Cancel safe.
    pub(super) async fn behind(&self) {
        self.behind.notified().await;
    }

    /// How many alerts were delivered, and how many were given up, since the start.
    pub(super) fn counts(&self) -> (u64, u64) {
        let Counts { sent, failed, .. } = &*self.counts;
        (sent.load(Ordering::Relaxed), failed.load(Ordering::Relaxed))
    }

    /// The last message of each alert that has lost it, or something of it.
    pub(super) fn lost(&self) -> Vec<api::LostAlert> {
        self.counts.lost().values().cloned().collect()
    }

    /// Lets what waits go at once, and the thread end. The returned future is over when it has, or
    /// after [`LAST_WORDS`] and a moment.
    pub(super) fn finish(&mut self) -> impl Future<Output = ()> + use<> {
        let desk = self.desk.take();
        let ended = desk.map(|desk| desk.ended);
        async {
            if let Some(ended) = ended {
                // However it ended: it was waited for.
                let _ = timeout(LAST_WORDS + A_MOMENT, ended).await;
            }
        }
    }
}

/// What is still on its way when the daemon stops has this long.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// And so long to tell in the log what was lost.
const A_MOMENT: Duration = Duration::from_millis(500);

fn start(
    alerts: Vec<Arc<AlertConfig>>,
    events: broadcast::Receiver<Event>,
    behind: Arc<Notify>,
    post: Post,
) -> std::io::Result<Desk> {
    let runtime = runtime::Builder::new_current_thread()
        .max_blocking_threads(MOST_BLOCKING)
        .enable_all()
        .build()?;
    let (sender, receiver) = tokio::sync::watch::channel(alerts);
    let (end, ended) = oneshot::channel();
    let clerk = Clerk {
        alerts: receiver,
        events,
        behind,
        post,
        cases: Vec::new(),
        on_their_way: JoinSet::new(),
    };
    thread::Builder::new()
        .name("alerts".to_owned())
        .spawn(move || {
            runtime.block_on(clerk.run());
            // A name look-up that still hangs must not hold the exit up.
            runtime.shutdown_background();
            // Nobody waits when the daemon ends otherwise.
            let _ = end.send(());
        })?;
    Ok(Desk {
        alerts: sender,
        ended,
    })
}

/// Threads that may hang in a name look-up or a file at a time.
const MOST_BLOCKING: usize = 16;

/// The thread's one loop and what it works with.
struct Clerk {
    alerts: tokio::sync::watch::Receiver<Vec<Arc<AlertConfig>>>,
    events: broadcast::Receiver<Event>,
    /// Told when events were missed.
    behind: Arc<Notify>,
    post: Post,
    cases: Vec<Case>,
    on_their_way: JoinSet<()>,
}

/// One alert of the configuration.
struct Case {
    config: Arc<AlertConfig>,
    watch: Watch,
    outbox: Outbox,
    /// The message that is on its way.
    delivery: Option<AbortHandle>,
}

impl Case {
    fn new(config: Arc<AlertConfig>) -> Self {
        Self {
            config,
            watch: Watch::default(),
            outbox: Outbox::default(),
            delivery: None,
        }
    }

    fn due(&self) -> Option<Instant> {
        match self.delivery {
            Some(_) => None,
            None => self.outbox.due(&self.config.pace),
        }
    }
}

impl Clerk {
    async fn run(mut self) {
        self.configure();
        loop {
            let due = self.cases.iter().filter_map(Case::due).min();
            let due = async {
                match due {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // What a reload changed counts for whatever happened after it.
                biased;
                changed = self.alerts.changed() => match changed {
                    Ok(()) => self.configure(),
                    Err(_) => break,
                },
                Some(ended) = self.on_their_way.join_next_with_id() => self.ended(&ended),
                event = self.events.recv() => match event {
                    Ok(event) => self.observe(&event),
                    Err(RecvError::Lagged(missed)) => {
                        tracing::warn!(missed, "alerts miss events: too many at once");
                        // What ended meanwhile must not stay open for ever.
                        self.behind.notify_one();
                    }
                    Err(RecvError::Closed) => break,
                },
                () = due => self.send_due(),
            }
        }
        // What has happened before the end waits here still.
        for _ in 0..=self.events.len() {
            match self.events.try_recv() {
                Ok(event) => self.observe(&event),
                Err(TryRecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "alerts miss events: too many at once");
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        self.send_all();
        let all = async {
            while let Some(ended) = self.on_their_way.join_next_with_id().await {
                self.ended(&ended);
            }
        };
        if timeout(LAST_WORDS, all).await.is_err() {
            tracing::warn!(
                alerts = self.on_their_way.len(),
                "alerts not sent: the daemon stops"
            );
        }
    }

    /// What is remembered and what waits stays with the alert's name.
    fn configure(&mut self) {
        let alerts = self.alerts.borrow_and_update().clone();
        let mut known = std::mem::take(&mut self.cases);
        // Whether an alert that was changed gets through is not known.
        self.post.counts.lost().retain(|name, _| {
            let was = known.iter().find(|it| it.config.name == *name);
            let is = alerts.iter().find(|it| it.name == *name);
            is.is_some() && was.map(|it| &it.config) == is
        });
        for config in alerts {
            let case = known
                .iter()
                .position(|case| case.config.name == config.name);
            self.cases.push(match case {
                Some(index) => Case {
                    config,
                    ..known.swap_remove(index)
                },
                None => Case::new(config),
            });
        }
        for delivery in known.into_iter().filter_map(|case| case.delivery) {
            delivery.abort();
        }
    }

    fn observe(&mut self, event: &Event) {
        let now = now();
        for case in &mut self.cases {
            for notice in case.watch.observe(&case.config, event, now) {
                case.outbox.add(notice, now.at);
            }
        }
    }

    fn send_due(&mut self) {
        let now = now();
        for case in self.cases.iter_mut().filter(|case| case.delivery.is_none()) {
            if let Some(parcel) = case.outbox.take(&case.config.pace, now.at) {
                let sending = self.post.send(&case.config, parcel, now);
                case.delivery = Some(self.on_their_way.spawn(sending));
            }
        }
    }

    /// Whatever waits, because nothing comes any more.
    fn send_all(&mut self) {
        let now = now();
        for case in &mut self.cases {
            if let Some(parcel) = case.outbox.take_all(now.at) {
                self.on_their_way
                    .spawn(self.post.send(&case.config, parcel, now));
            }
        }
    }

    fn ended(&mut self, ended: &Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => *id,
            // A defect, which the log has told of; or its alert is not in the file any more.
            Err(error) => error.id(),
        };
        let case = self.cases.iter_mut().find(|case| {
            let delivery = case.delivery.as_ref();
            delivery.is_some_and(|delivery| delivery.id() == id)
        });
        if let Some(case) = case {
            case.delivery = None;
        }
    }
}

/// What every delivery needs.
struct Post {
    /// This machine's name.
    host: Arc<str>,
    runner: Option<Runner>,
    counts: Arc<Counts>,
}

impl Post {
    /// Delivers a parcel, and has it told how that went.
    fn send(
        &self,
        config: &Arc<AlertConfig>,
        parcel: Parcel,
        now: Moment,
    ) -> impl Future<Output = ()> + use<> {
        let Parcel {
            notices,
            held_back,
            omitted,
        } = parcel;
        let message = Message::new(
            Arc::clone(&config.name),
            Arc::clone(&self.host),
            now.wall,
            (held_back, omitted),
            notices,
        );
        let config = Arc::clone(config);
        let runner = self.runner.clone();
        let sending = Sending {
            alert: Arc::clone(&config.name),
            to: config.target.to_string(),
            events: message.events.len(),
            held_back,
            omitted,
            text: message.text.clone(),
            counts: Arc::clone(&self.counts),
            delivered: None,
        };
        async move {
            sending.end(deliver(&config, &message, runner.as_ref()).await);
        }
    }
}

/// A message on its way, which is counted and told in the log when that is over, however it ends.
struct Sending {
    alert: Arc<str>,
    to: String,
    events: usize,
    held_back: u64,
    omitted: u64,
    text: String,
    counts: Arc<Counts>,
    delivered: Option<Delivered>,
}

impl Sending {
    /// It went like that.
    fn end(mut self, delivered: Delivered) {
        self.delivered = Some(delivered);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let Self {
            alert,
            to,
            events,
            held_back,
            omitted,
            text,
            counts,
            delivered,
        } = self;
        let given_up = || Delivered {
            attempts: 0,
            took: Duration::ZERO,
            result: Err(GIVEN_UP.to_owned()),
        };
        let was_tried = delivered.is_some();
        let Delivered {
            attempts,
            took,
            result,
        } = delivered.take().unwrap_or_else(given_up);
        let took_ms = millis(took);
        let why = match result {
            Ok(()) => {
                counts.sent.fetch_add(1, Ordering::Relaxed);
                tracing::info!(%alert, events, held_back, omitted, attempts, took_ms, "alert sent");
                (*omitted > 0).then(|| format!("{omitted} events had no room in it"))
            }
            Err(error) => {
                let failed = counts.failed.fetch_add(1, Ordering::Relaxed) + 1;
                tracing::warn!(%alert, to, events, held_back, omitted, attempts, took_ms, error, failed, text, "alert not sent");
                Some(error)
            }
        };
        let lost = why.map(|why| api::LostAlert {
            alert: alert.to_string(),
            at: time(SystemTime::now()),
            to: std::mem::take(to),
            why,
            text: std::mem::take(text),
        });
        match lost {
            Some(lost) if was_tried => drop(counts.lost().insert(Arc::clone(alert), lost)),
            // Its alert has left the file, and nothing is to be told of that, or the daemon stops.
            Some(_) => {}
            None => drop(counts.lost().remove(alert)),
        }
    }
}

/// Why a message is lost that nobody tries to deliver any more.
const GIVEN_UP: &str = "given up on its way: the daemon stops, or the alert has left the file";

fn now() -> Moment {
    Moment {
        at: Instant::now(),
        // Before 1970 there were no alerts.
        wall: UNIX_EPOCH.elapsed().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compile;

    #[tokio::test]
    async fn what_has_happened_before_the_end_is_told() {
        let text = "[[service]]\nname = \"web\"\nlisten = \"[::]:80\"\n[[service.backend]]\naddress = \"b:1\"\n\
                    [[alert]]\nname = \"ops\"\non = \"reload-failed\"\nexec = \"/a\"\nretries = 0\n";
        let loaded = compile(text, "f").unwrap_or_else(|wrong| panic!("{wrong}"));
        for _ in 0..20 {
            let (events, watcher) = broadcast::channel(8);
            let mut alerts = Alerts::new(None);
            alerts.configure(&loaded.config.alerts, || watcher);
            let problems = ["x".into()].into();
            let service = None;
            events.send(Event::Rejected { service, problems }).unwrap();
            alerts.finish().await;
            // Tried, that is: there is nobody who could start the program.
            assert_eq!(alerts.counts(), (0, 1));
            let lost = alerts.lost();
            assert_eq!(
                (lost.len(), &*lost[0].alert, &*lost[0].to),
                (1, "ops", "/a")
            );
            assert_eq!(lost[0].why, "there is no runner to start programs");
            assert!(lost[0].text.ends_with("a reload was rejected: x"));
        }
    }

    #[tokio::test]
    async fn nothing_is_told_of_an_alert_that_leaves_the_file_on_its_way() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let text = format!(
            "[[service]]\nname = \"web\"\nlisten = \"[::]:80\"\n[[service.backend]]\naddress = \"b:1\"\n\
             [[alert]]\nname = \"ops\"\non = \"reload-failed\"\ngroup_wait = \"0s\"\nwebhook = \"http://{}/\"\n",
            silent.local_addr().unwrap()
        );
        let loaded = compile(&text, "f").unwrap_or_else(|wrong| panic!("{wrong}"));
        let (events, watcher) = broadcast::channel(8);
        let mut alerts = Alerts::new(None);
        alerts.configure(&loaded.config.alerts, || watcher);
        let problems = ["x".into()].into();
        let service = None;
        events.send(Event::Rejected { service, problems }).unwrap();
        let on_its_way = timeout(Duration::from_secs(60), silent.accept()).await;
        let _hangs = on_its_way.unwrap().unwrap();
        alerts.configure(&[], || unreachable!());
        alerts.finish().await;
        assert_eq!(alerts.counts(), (0, 1));
        assert_eq!(alerts.lost(), []);
    }

    #[tokio::test]
    async fn whoever_misses_events_asks_how_everything_stands() {
        let text = "[[service]]\nname = \"web\"\nlisten = \"[::]:80\"\n[[service.backend]]\naddress = \"b:1\"\n\
                    [[alert]]\nname = \"ops\"\non = \"backend-up\"\nexec = \"/a\"\n";
        let loaded = compile(text, "f").unwrap_or_else(|wrong| panic!("{wrong}"));
        let (events, late) = broadcast::channel(1);
        for _ in 0..3 {
            let service = "web".into();
            events.send(Event::Accepted { service }).unwrap();
        }
        let mut alerts = Alerts::new(None);
        alerts.configure(&loaded.config.alerts, || late);
        let asked = timeout(Duration::from_secs(60), alerts.behind()).await;
        assert!(asked.is_ok());
        alerts.finish().await;
    }
}
