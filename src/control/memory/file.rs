//! The state file: what is in it, and when it is not to be used. Reads and writes no file.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::written;
use crate::health::{AdminView, Duty, Percent, State, Totals};
use crate::model::{Address, BackendId};

/// What is remembered of one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) backend: BackendId,
    /// Where it was: what its checks said holds there and nowhere else.
    pub(super) address: Option<Address>,
    pub(super) state: State,
    /// Since when it was in that state.
    pub(super) since: Option<SystemTime>,
    pub(super) admin: AdminView,
    pub(super) said: Said,
    pub(super) totals: Totals,
}

/// When an operator has said what holds of a backend, who it was, and until when it drains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::control) struct Said {
    pub(in crate::control) since: Option<SystemTime>,
    pub(in crate::control) by: Option<Arc<str>>,
    pub(in crate::control) until: Option<SystemTime>,
}

/// All that is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) backends: Vec<Entry>,
    /// The record of each service.
    pub(super) services: Vec<(Arc<str>, Totals)>,
    /// What was read and cannot be, so that it is not in the others; for people.
    pub(super) odd: Vec<String>,
}

/// Why a state file is not used.
#[derive(Debug, Error)]
pub(super) enum Unusable {
    #[error("it is {} old, more than state_max_age", written(*.0))]
    TooOld(Duration),
    #[error("it is dated {} ahead of the clock, more than state_max_age", written(*.0))]
    TooNew(Duration),
    #[error("it is of version {0}, not {VERSION}")]
    Version(u32),
    #[error("it is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
}

/// The bytes of a file saved at `now`.
pub(super) fn encode(contents: &Contents, now: SystemTime) -> serde_json::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(&Written {
        version: VERSION,
        saved_ms: millis(
            now.duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
        ),
        backends: contents.backends.iter().map(WrittenBackend::from).collect(),
        services: contents.services.iter().map(WrittenService::from).collect(),
    })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// What the bytes of a file say, unless it is older than `max_age` at `now`.
pub(super) fn decode(
    bytes: &[u8],
    now: SystemTime,
    max_age: Duration,
) -> Result<Contents, Unusable> {
    // Another version may be of another shape, so that is asked first.
    let Version { version } = serde_json::from_slice(bytes)?;
    if version != VERSION {
        return Err(Unusable::Version(version));
    }
    let written: Written = serde_json::from_slice(bytes)?;
    let saved = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(written.saved_ms));
    let seconds = |age: Duration| Duration::from_secs(age.as_secs());
    match saved.map(|saved| now.duration_since(saved)) {
        Some(Ok(age)) if age > max_age => return Err(Unusable::TooOld(seconds(age))),
        // A clock that was put back a little makes it young, not old. From further ahead nobody can tell its age.
        Some(Err(ahead)) if ahead.duration() > max_age => {
            return Err(Unusable::TooNew(seconds(ahead.duration())));
        }
        Some(Ok(_) | Err(_)) => {}
        None => return Err(Unusable::TooNew(Duration::MAX)),
    }
    let mut contents = Contents {
        backends: written.backends.into_iter().map(Entry::from).collect(),
        services: written.services.into_iter().map(Into::into).collect(),
        odd: Vec::new(),
    };
    contents.leave_out_what_cannot_be(now.max(saved.unwrap_or(now)));
    Ok(contents)
}

impl Contents {
    /// Somebody may have edited the file: a time that has not come yet, or a record of more than there has been
    /// time for, would be told for ever.
    fn leave_out_what_cannot_be(&mut self, now: SystemTime) {
        let mut odd = |whose: &dyn fmt::Display, what: &str| {
            if self.odd.len() < MOST_ODD {
                self.odd.push(format!("{whose}: {what}"));
            }
        };
        let most = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        for entry in &mut self.backends {
            if !is_possible(&entry.totals, most) {
                entry.totals = Totals::default();
                odd(
                    &entry.backend,
                    "its record is of more than there has been time for",
                );
            }
            for since in [&mut entry.since, &mut entry.said.since] {
                if since.is_some_and(|it| it > now) {
                    *since = None;
                    odd(
                        &entry.backend,
                        "it has been so since a time that has not come yet",
                    );
                }
            }
            let latest = now.checked_add(LONGEST_DRAIN);
            if entry.said.until > latest {
                entry.said.until = latest;
                odd(&entry.backend, "its drain would last for years");
            }
        }
        for (service, totals) in &mut self.services {
            if !is_possible(totals, most) {
                *totals = Totals::default();
                odd(
                    service,
                    "its record is of more than there has been time for",
                );
            }
        }
    }
}

/// Whether all of it can have been in `most` of a time: a change takes a millisecond at least.
fn is_possible(totals: &Totals, most: Duration) -> bool {
    let parts = [totals.up, totals.down, totals.set_aside];
    let time = parts
        .into_iter()
        .try_fold(Duration::ZERO, Duration::checked_add);
    let changes = [totals.failures, totals.recoveries, totals.flaps];
    time.is_some_and(|it| it <= most)
        && totals.repaired <= totals.down
        && changes
            .into_iter()
            .all(|it| u128::from(it) <= most.as_millis())
}

/// Things that cannot be that are told.
const MOST_ODD: usize = 10;
/// Whoever drains for longer does not mean it: it is neither asked for nor remembered.
pub(in crate::control) const LONGEST_DRAIN: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Raised when a file of before could be misread.
const VERSION: u32 = 1;

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    saved_ms: u64,
    backends: Vec<WrittenBackend>,
    /// Not in files of before there were records of services.
    #[serde(default)]
    services: Vec<WrittenService>,
}

#[derive(Serialize, Deserialize)]
struct WrittenService {
    name: Arc<str>,
    #[serde(flatten)]
    totals: WrittenTotals,
}

#[derive(Serialize, Deserialize)]
struct WrittenTotals {
    up_ms: u64,
    down_ms: u64,
    /// Not in files of before these were told.
    #[serde(default)]
    repaired_ms: Option<u64>,
    #[serde(default)]
    set_aside_ms: u64,
    failures: u64,
    recoveries: u64,
    flaps: u64,
}

#[derive(Serialize, Deserialize)]
struct WrittenBackend {
    service: Arc<str>,
    name: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Address>,
    health: WrittenState,
    /// Not in files of before that was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since_ms: Option<u64>,
    duty: WrittenDuty,
    weight_percent: u16,
    /// Not in files of before that was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    said_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    said_by: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drains_until_ms: Option<u64>,
    #[serde(flatten)]
    totals: WrittenTotals,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenState {
    Unknown,
    Up,
    Down,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenDuty {
    Serve,
    Drain,
    Maintenance,
}

impl From<&Entry> for WrittenBackend {
    fn from(entry: &Entry) -> Self {
        Self {
            service: Arc::clone(entry.backend.service()),
            name: Arc::clone(entry.backend.name()),
            address: entry.address,
            health: match entry.state {
                State::Unknown => WrittenState::Unknown,
                State::Up => WrittenState::Up,
                State::Down => WrittenState::Down,
            },
            since_ms: entry.since.map(since_epoch),
            duty: match entry.admin.duty {
                Duty::Serve => WrittenDuty::Serve,
                Duty::Drain => WrittenDuty::Drain,
                Duty::Maintenance => WrittenDuty::Maintenance,
            },
            weight_percent: entry.admin.weight.get(),
            said_ms: entry.said.since.map(since_epoch),
            said_by: entry.said.by.clone(),
            drains_until_ms: entry.said.until.map(since_epoch),
            totals: (&entry.totals).into(),
        }
    }
}

impl From<&(Arc<str>, Totals)> for WrittenService {
    fn from((name, totals): &(Arc<str>, Totals)) -> Self {
        Self {
            name: Arc::clone(name),
            totals: totals.into(),
        }
    }
}

impl From<&Totals> for WrittenTotals {
    fn from(totals: &Totals) -> Self {
        Self {
            up_ms: millis(totals.up),
            down_ms: millis(totals.down),
            repaired_ms: Some(millis(totals.repaired)),
            set_aside_ms: millis(totals.set_aside),
            failures: totals.failures,
            recoveries: totals.recoveries,
            flaps: totals.flaps,
        }
    }
}

impl From<WrittenTotals> for Totals {
    fn from(written: WrittenTotals) -> Self {
        Self {
            up: Duration::from_millis(written.up_ms),
            down: Duration::from_millis(written.down_ms),
            repaired: Duration::from_millis(written.repaired_ms.unwrap_or(written.down_ms)),
            set_aside: Duration::from_millis(written.set_aside_ms),
            failures: written.failures,
            recoveries: written.recoveries,
            flaps: written.flaps,
        }
    }
}

impl From<WrittenService> for (Arc<str>, Totals) {
    fn from(written: WrittenService) -> Self {
        (written.name, written.totals.into())
    }
}

impl From<WrittenBackend> for Entry {
    fn from(written: WrittenBackend) -> Self {
        Self {
            backend: BackendId::new(written.service, written.name),
            address: written.address,
            state: match written.health {
                WrittenState::Unknown => State::Unknown,
                WrittenState::Up => State::Up,
                WrittenState::Down => State::Down,
            },
            since: written.since_ms.and_then(moment),
            admin: AdminView {
                duty: match written.duty {
                    WrittenDuty::Serve => Duty::Serve,
                    WrittenDuty::Drain => Duty::Drain,
                    WrittenDuty::Maintenance => Duty::Maintenance,
                },
                weight: Percent::new(written.weight_percent),
            },
            said: Said {
                since: written.said_ms.and_then(moment),
                by: written.said_by,
                until: written.drains_until_ms.and_then(moment),
            },
            totals: written.totals.into(),
        }
    }
}

fn since_epoch(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    millis(since.unwrap_or_default())
}

/// A time that can be written as a date; a damaged file may hold others.
fn moment(ms: u64) -> Option<SystemTime> {
    let since = Duration::from_millis(ms);
    (ms < YEAR_9999_MS).then_some(SystemTime::UNIX_EPOCH + since)
}

/// Beyond it there is no date in RFC 3339.
const YEAR_9999_MS: u64 = 253_370_764_800_000;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn entry() -> Entry {
        Entry {
            backend: BackendId::new("web", "größe"),
            address: Some("[2001:db8::7]:80".parse().unwrap()),
            state: State::Down,
            since: moment(6_000),
            admin: AdminView {
                duty: Duty::Drain,
                weight: Percent::new(30),
            },
            said: Said {
                since: moment(7_000),
                by: Some("uid 0".into()),
                until: moment(9_001),
            },
            totals: Totals {
                up: Duration::from_millis(1_234),
                down: Duration::from_millis(5),
                repaired: Duration::from_millis(4),
                set_aside: Duration::from_millis(7),
                failures: 2,
                recoveries: 1,
                flaps: 1,
            },
        }
    }

    fn contents() -> Contents {
        let totals = Totals {
            failures: 3,
            ..entry().totals
        };
        Contents {
            backends: vec![entry()],
            services: vec![("web".into(), totals)],
            odd: Vec::new(),
        }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = encode(&contents(), at(1_000)).unwrap();
        assert_eq!(decode(&bytes, at(1_010), HOUR).unwrap(), contents());
        // A clock that went back.
        assert_eq!(decode(&bytes, at(10), HOUR).unwrap(), contents());
    }

    #[test]
    fn what_cannot_be_is_left_out_and_told() {
        let (early, late) = (at(1_000), at(2_000));
        let mut wrong = contents();
        wrong.services[0].1.down = Duration::from_secs(1_001);
        let entry = &mut wrong.backends[0];
        entry.totals.failures = u64::MAX;
        entry.since = Some(late);
        entry.said.since = Some(late);
        entry.said.until = Some(early + 2 * LONGEST_DRAIN);
        let read = decode(&encode(&wrong, early).unwrap(), early, HOUR).unwrap();
        let entry = &read.backends[0];
        assert_eq!((entry.totals, read.services[0].1), Default::default());
        assert_eq!((entry.since, entry.said.since), (None, None));
        assert_eq!(entry.said.until, Some(early + LONGEST_DRAIN));
        assert_eq!(entry.admin, super::tests::entry().admin);
        assert_eq!(read.odd.len(), 5, "{:?}", read.odd);
        // What is so many times wrong is told a few times.
        wrong.backends = vec![wrong.backends[0].clone(); 100];
        let read = decode(&encode(&wrong, early).unwrap(), early, HOUR).unwrap();
        assert_eq!(read.odd.len(), MOST_ODD);
    }

    #[test]
    fn a_file_without_records_of_services_is_read() {
        let bytes = encode(&contents(), at(1_000)).unwrap();
        let mut written: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        written.as_object_mut().unwrap().remove("services");
        let read = decode(written.to_string().as_bytes(), at(1_000), HOUR).unwrap();
        assert_eq!((read.backends, read.services), (vec![entry()], Vec::new()));
    }

    #[test]
    fn all_time_down_in_a_file_of_before_repairs_were_told_counts_as_repaired() {
        let bytes = encode(&contents(), at(1_000)).unwrap();
        let written = String::from_utf8(bytes).unwrap();
        let former = written.replace("\"repaired_ms\":4,\"set_aside_ms\":7,", "");
        assert_ne!(former, written);
        let read = decode(former.as_bytes(), at(1_000), HOUR).unwrap();
        let totals = read.backends[0].totals;
        assert_eq!(
            (totals.repaired, totals.set_aside),
            (totals.down, Duration::ZERO)
        );
    }

    #[test]
    fn what_is_too_old_of_another_version_or_damaged_is_not_used() {
        let bytes = encode(&contents(), at(1_000)).unwrap();
        let why = |bytes: &[u8], now| decode(bytes, now, HOUR).unwrap_err().to_string();
        let dated = encode(&contents(), at(10_000)).unwrap();
        assert_eq!(
            why(&dated, at(6_399)),
            "it is dated 1h1s ahead of the clock, more than state_max_age"
        );
        assert_eq!(
            why(&bytes, at(4_601)),
            "it is 1h1s old, more than state_max_age"
        );
        let other = String::from_utf8(bytes.clone()).unwrap();
        let other = other.replace("\"version\":1", "\"version\":2");
        assert_eq!(
            why(other.as_bytes(), at(1_000)),
            "it is of version 2, not 1"
        );
        assert!(why(&bytes[..bytes.len() / 2], at(1_000)).starts_with("it is damaged"));
        assert!(why(b"", at(1_000)).starts_with("it is damaged"));
    }

    #[test]
    fn hunted() {
        let entry = |service: &str, name: &str, state, duty| Entry {
            backend: BackendId::new(service, name),
            address: Some("10.0.0.1:80".parse().unwrap()),
            state,
            since: None,
            admin: AdminView {
                duty,
                weight: Percent::new(50),
            },
            said: Said::default(),
            totals: Totals::default(),
        };
        let contents = Contents {
            services: vec![("web".into(), Totals::default())],
            odd: Vec::new(),
            backends: vec![
                entry("web", "a", State::Up, Duty::Serve),
                entry("web", "b", State::Down, Duty::Drain),
                entry("db", "a", State::Unknown, Duty::Maintenance),
            ],
        };
        let hunt = crate::fuzzing::Hunt {
            target: "state",
            cases: 2000,
            seeds: vec![encode(&contents, at(1_000)).unwrap()],
            words: &[
                b"\"version\":1",
                b"\"saved_ms\":1000000",
                b"\"backends\":[",
                b"\"services\":[",
                b"null",
                b"{}",
                b"[]",
                b"\"up_ms\":18446744073709551615",
                b"\"state\":\"up\"",
                b"\"duty\":\"drain\"",
                b",",
                b"1e400",
                b"\"\\ud800\"",
                b"\"address\":\"[::1%1]:80\"",
                b"true",
            ],
        };
        hunt.run(|bytes| match decode(bytes, at(1_000), HOUR) {
            Ok(mut contents) => {
                contents.odd.clear();
                let written = encode(&contents, at(1_000)).unwrap();
                assert_eq!(decode(&written, at(1_000), HOUR).unwrap(), contents);
                format!(
                    "{} and {}",
                    ["none", "some"][contents.backends.len().min(1)],
                    ["none", "some"][contents.services.len().min(1)]
                )
            }
            Err(unusable) => unusable.to_string(),
        });
    }

    proptest! {
        #[test]
        fn any_record_survives_the_file(
            service in "[^/ ]{1,20}",
            port in 1_u16..,
            weight in 0_u16..=1000,
            (up, down) in (0_u64..300_000, 0_u64..300_000),
            counts in (0_u64..1_000_000, 0_u64..1_000_000, 0_u64..1_000_000),
        ) {
            let entry = Entry {
                backend: BackendId::new(service, "b"),
                address: Some(std::net::SocketAddr::from(([10, 0, 0, 1], port)).into()),
                state: State::Up,
                since: None,
                admin: AdminView { duty: Duty::Serve, weight: Percent::new(weight) },
                said: Said::default(),
                totals: Totals {
                    up: Duration::from_millis(up),
                    down: Duration::from_millis(down),
                    repaired: Duration::from_millis(down / 2),
                    set_aside: Duration::from_millis(up / 2),
                    failures: counts.0,
                    recoveries: counts.1,
                    flaps: counts.2,
                },
            };
            let contents = Contents {
                services: vec![(Arc::clone(entry.backend.service()), entry.totals)],
                backends: vec![entry],
                odd: Vec::new(),
            };
            let bytes = encode(&contents, at(1_000)).unwrap();
            prop_assert_eq!(decode(&bytes, at(1_000), HOUR).unwrap(), contents);
        }

        #[test]
        fn garbage_is_an_answer_and_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes, at(1_000), HOUR).is_err());
        }
    }
}
