//! What the tests of an alert's memory share: an alert, and things that happen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Watch;
use crate::config::{AlertConfig, Occasion, compile};
use crate::control::alerts::drafting::Moment;
use crate::control::alerts::notice::Status;
use crate::control::{Event, Picture, Presence, Standing};
use crate::health::{State, Turn};
use crate::model::{BackendId, Cause};

pub(super) fn config(alert: &str) -> AlertConfig {
    let text = format!(
        "[[service]]\nname = \"web\"\nlisten = \"[::]:80\"\n[[service.backend]]\naddress = \"b:1\"\n\
         [[service]]\nname = \"db\"\nlisten = \"[::]:81\"\n[[service.backend]]\naddress = \"b:1\"\n\
         [[alert]]\nname = \"ops\"\nexec = \"/a\"\n{alert}\n"
    );
    let mut loaded = compile(&text, "f").unwrap_or_else(|wrong| panic!("{wrong}"));
    loaded.config.alerts.remove(0)
}

pub(super) fn everything() -> AlertConfig {
    let mut config = config("on = \"suspect\"");
    config.on = Occasion::ALL.into();
    config
}

pub(super) fn transition(service: &str, from: State, to: State, eligible: usize) -> Event {
    Event::Transition {
        backend: BackendId::new(service, "a"),
        address: "10.0.0.1:80".parse().unwrap(),
        from,
        to,
        cause: (to == State::Down).then_some(Cause::Refused.into()),
        after: Duration::from_secs(1),
        ejected: false,
        eligible,
        configured: 4,
    }
}

pub(super) fn ejection(out: Option<Duration>, state: State) -> Event {
    Event::Ejection {
        backend: BackendId::new("web", "a"),
        address: "10.0.0.1:80".parse().unwrap(),
        out,
        state,
        eligible: 3,
        configured: 4,
    }
}

/// What is told of each event in turn, a second apart.
pub(super) fn told(config: &AlertConfig, events: &[Event]) -> Vec<Vec<(Occasion, Status)>> {
    let start = Instant::now();
    let mut watch = Watch::default();
    let mut second = 0;
    let observe = |event| {
        second += 1;
        let now = Moment {
            at: start + Duration::from_secs(second),
            wall: Duration::ZERO,
        };
        let notices = watch.observe(config, event, now);
        notices.iter().map(|it| (it.event, it.status)).collect()
    };
    events.iter().map(observe).collect()
}

pub(super) fn picture(service: &str, eligible: usize, states: &[State]) -> Arc<Picture> {
    let turn = Turn {
        suspect: false,
        latency: Duration::ZERO,
        usual: Duration::ZERO,
        phi: 0.0,
    };
    let presence = |(name, &state): (&str, &State)| Presence {
        backend: BackendId::new(service, name),
        address: "10.0.0.1:80".parse().unwrap(),
        state,
        turn,
    };
    let standing = Standing {
        service: service.into(),
        eligible,
        configured: 4,
    };
    Arc::new(Picture {
        services: vec![standing],
        backends: ["a", "b"].into_iter().zip(states).map(presence).collect(),
        standbys: Vec::new(),
        rejected: Vec::new(),
    })
}

pub(super) fn standing(service: &str, eligible: usize) -> Event {
    Event::Reloaded(picture(service, eligible, &[]))
}
