//! `GET /metrics`: how everything stands, and all that was counted, for Prometheus and its kin. Made
//! from the same view as everything else that operators are shown, and written beside control, because
//! ten thousand backends take a while.
//!
//! [`families`] is the one table of what there is, [`rows`] how each is written; [`text`] knows the two
//! formats.

mod families;
mod rows;
mod text;

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{ACCEPT, VARY};
use http::{HeaderValue, StatusCode};
use hyper::body::Bytes;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, getrlimit};
use tokio::sync::Mutex;

use self::families::Scraped;
use self::text::{Format, in_prometheus_format};
use super::hub::{Hub, fresh_for, unwritten};
use super::reply::{Refusal, reply};
use super::routes::{Call, Later};
use crate::api::View;

/// `GET /metrics`
pub(super) fn scrape(call: Call) -> Later {
    Box::pin(async move {
        let accept = call.headers.get(ACCEPT).and_then(|it| it.to_str().ok());
        let format = Format::accepted(accept.unwrap_or_default());
        let text = call.hub.scrapes.text(&call.hub, format).await?;
        let mut reply = reply(StatusCode::OK, format.media_type(), text);
        let headers = reply.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("accept"));
        Ok(reply)
    })
}

/// The last text of each format.
#[derive(Debug, Default)]
pub(super) struct Scrapes {
    open_metrics: Mutex<Option<Scrape>>,
    prometheus: Mutex<Option<Scrape>>,
}

#[derive(Debug)]
struct Scrape {
    text: Bytes,
    written: Instant,
    /// How long that took.
    took: Duration,
}

impl Scrape {
    fn is_fresh(&self) -> bool {
        self.written.elapsed() < fresh_for(self.took)
    }
}

impl Scrapes {
    async fn text(&self, hub: &Hub, format: Format) -> Result<Bytes, Refusal> {
        let scrape = match format {
            Format::OpenMetrics => &self.open_metrics,
            Format::Prometheus => &self.prometheus,
        };
        // Held while it is written: a flood of scrapes is one.
        let mut scrape = scrape.lock().await;
        if let Some(scrape) = scrape.as_ref().filter(|it| it.is_fresh()) {
            return Ok(scrape.text.clone());
        }
        let view = hub.view().await?.view;
        let writing = hub.scribe.write(move || {
            let began = Instant::now();
            let text = exposition(view, Descriptors::look(), format);
            text.map(|text| (text, began.elapsed()))
        });
        let Some(Ok((text, took))) = writing.await else {
            return Err(unwritten());
        };
        let text = Bytes::from(text);
        *scrape = Some(Scrape {
            text: text.clone(),
            written: Instant::now(),
            took,
        });
        Ok(text)
    }
}

/// All metrics, in that format.
fn exposition(
    view: Arc<View>,
    descriptors: Descriptors,
    format: Format,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Everything(Scraped { view, descriptors })));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(match format {
        Format::OpenMetrics => text,
        Format::Prometheus => in_prometheus_format(&text),
    })
}

#[derive(Debug)]
struct Everything(Scraped);

impl Collector for Everything {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        families::encode(&self.0, &mut encoder)
    }
}

/// File descriptors of the process.
#[derive(Clone, Copy, Debug, Default)]
struct Descriptors {
    open: u64,
    limit: Option<u64>,
}

impl Descriptors {
    fn look() -> Self {
        const OWN: &str = "/proc/self/fd";
        // Since Linux 6.2 the kernel says how many there are; before, they have to be listed.
        let told = fs::metadata(OWN).map_or(0, |it| it.size());
        let listed = || fs::read_dir(OWN).map_or(0, |all| all.count() as u64);
        Self {
            open: if told > 0 { told } else { listed() },
            limit: getrlimit(Resource::Nofile).current,
        }
    }
}

#[cfg(test)]
mod tests;
