//! Events as they happen, over server-sent events, with a view about once a second (WHATWG HTML § 9.2).
//! Whoever does not keep up is told so and let go, so that nobody's slowness costs memory.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;
use hyper::body::Bytes;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, sleep_until};

use super::hub::Hub;
use super::reply::{Body, Refusal, reply};
use super::routes::{Call, Later};
use super::server::Busy;
use crate::api::Event;

/// `GET /v1/events/stream`
pub(super) fn follow(call: Call) -> Later {
    Box::pin(async move {
        let seat = Seat::take(&call.hub)?;
        // A browser that was cut off says what it had heard last.
        let heard = call.headers.get("last-event-id");
        let heard = heard.and_then(|id| id.to_str().ok()?.parse().ok());
        let since = match heard {
            Some(id) => id,
            None => call
                .number("since")?
                .unwrap_or_else(|| call.hub.journal.last()),
        };
        let (frames, feed) = mpsc::channel(MOST_FRAMES);
        // Once it is told nothing more, it has as long to read the rest as everybody has.
        tokio::spawn(tell(call.hub, since, frames, (seat, call.busy)));
        let feed = Body::Feed(Feed { frames: feed });
        Ok(reply(StatusCode::OK, "text/event-stream", Bytes::new()).map(|_| feed))
    })
}

/// What a listener is sent, as it comes.
#[derive(Debug)]
pub(super) struct Feed {
    frames: mpsc::Receiver<Bytes>,
}

impl Feed {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        Pin::new(&mut self.frames).get_mut().poll_recv(cx)
    }
}

/// One of those who listen.
#[derive(Debug)]
struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn take(hub: &Hub) -> Result<Self, Refusal> {
        let seat = Self(Arc::clone(&hub.listeners));
        match seat.0.fetch_add(1, Ordering::Relaxed) < MOST_LISTENERS {
            true => Ok(seat),
            false => Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{MOST_LISTENERS} listen already"),
            )),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells one listener of everything, until it is gone or does not keep up.
async fn tell(hub: Arc<Hub>, since: u64, frames: mpsc::Sender<Bytes>, _kept: (Seat, Arc<Busy>)) {
    let (past, mut coming) = hub.journal.follow(since);
    // The last place is for the word that there is no room.
    let send = |frame: Bytes| match frames.capacity() {
        0 => Err(TrySendError::Full(frame)),
        1 => {
            let _ = frames.try_send(Bytes::from_static(LAGGED));
            Err(TrySendError::Full(frame))
        }
        _ => frames.try_send(frame),
    };
    for event in past.iter().rev().take(MOST_FRAMES / 2).rev() {
        if send(frame(event)).is_err() {
            return;
        }
    }
    let mut next_view = Instant::now();
    let mut waits = None;
    loop {
        let sent = tokio::select! {
            biased;
            () = frames.closed() => return,
            event = coming.recv() => match event {
                Ok(event) => send(frame(&event)),
                Err(RecvError::Lagged(_)) => {
                    let _ = send(Bytes::from_static(LAGGED));
                    return;
                }
                Err(RecvError::Closed) => return,
            },
            () = sleep_until(next_view) => {
                if frames.capacity() < frames.max_capacity() {
                    // Another view would wait behind what waits already, and take its memory.
                    if waits.get_or_insert_with(Instant::now).elapsed() >= STUCK {
                        let _ = send(Bytes::from_static(LAGGED));
                        return;
                    }
                    next_view = Instant::now() + PAUSE;
                    continue;
                }
                waits = None;
                let Ok(shown) = hub.view().await else {
                    return;
                };
                let Ok(json) = hub.json(&shown).await else {
                    return;
                };
                // A large one is sent less often: a megabyte a second is enough.
                let pauses = 1 + u32::try_from(json.len() >> 20).unwrap_or(u32::MAX);
                next_view = Instant::now() + PAUSE * pauses;
                send([b"event: view\ndata: ", &json[..], b"\n\n"].concat().into())
            },
        };
        if sent.is_err() {
            return;
        }
    }
}

/// An event, whose name is its kind.
fn frame(event: &Event) -> Bytes {
    let json = serde_json::to_string(event).unwrap_or_default();
    format!("event: event\nid: {}\ndata: {json}\n\n", event.id).into()
}

/// The last that a listener hears who does not keep up; what it has missed can be asked for.
const LAGGED: &[u8] = b"event: lagged\ndata: {}\n\n";
/// A listener to whom nothing could be sent for so long has gone.
const STUCK: Duration = Duration::from_secs(30);
/// Between two views.
const PAUSE: Duration = Duration::from_secs(1);
/// What waits to be sent to one listener.
const MOST_FRAMES: usize = 64;
/// Listeners at a time.
const MOST_LISTENERS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_frame_with_its_number() {
        let event = Event {
            id: 7,
            text: "two\nlines".to_owned(),
            ..Event::default()
        };
        let frame = frame(&event);
        let text = std::str::from_utf8(&frame).unwrap();
        assert!(text.starts_with("event: event\nid: 7\ndata: {"), "{text}");
        assert_eq!(text.lines().count(), 4, "{text}");
    }
}
