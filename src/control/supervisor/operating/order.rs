//! What operators ask for, checked: the orders that can be carried out, whom they concern, and why others
//! are refused. Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::admin::Denied;
use crate::api::{Change, Departed, Refused};
use crate::control::memory::LONGEST_DRAIN;
use crate::control::services::Serving;
use crate::health::{AdminView, Duty, Percent};
use crate::model::BackendId;

/// A [`Change`] that can be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// For so long at most, if that is given.
    Drain(Option<Duration>),
    Disable,
    Enable,
    Weight(Percent),
    Reset,
    Close,
}

impl Order {
    /// Checks what is asked for.
    pub(super) fn new(change: &Change) -> Result<Self, Denied> {
        Ok(match change {
            Change::Drain { deadline_seconds } => {
                Self::Drain(deadline_seconds.map(deadline).transpose()?)
            }
            Change::Disable => Self::Disable,
            Change::Enable => Self::Enable,
            Change::Weight { percent } if *percent > Percent::MOST => {
                let refused = Refused::new(format!("{percent} percent is too much"));
                let help = format!("allowed: 0 to {}", Percent::MOST);
                return Err(Denied::Unfit(refused.with_help(help)));
            }
            Change::Weight { percent } => Self::Weight(Percent::new(*percent)),
            Change::Reset => Self::Reset,
            Change::CloseSessions => Self::Close,
        })
    }

    /// What is said of a backend from now on, of which this `was` said.
    pub(super) fn says(self, was: AdminView) -> AdminView {
        let duty = |duty| AdminView { duty, ..was };
        match self {
            Self::Drain(_) => duty(Duty::Drain),
            Self::Disable => duty(Duty::Maintenance),
            Self::Enable => duty(Duty::Serve),
            Self::Weight(weight) => AdminView { weight, ..was },
            Self::Reset => AdminView::default(),
            Self::Close => was,
        }
    }

    /// The backends of a service that are meant: `backend`, or all, and where sessions are closed, also of those
    /// that have `departed`.
    pub(super) fn concerns(
        self,
        serving: &Serving,
        backend: Option<&str>,
        departed: &[Departed],
    ) -> Result<Vec<BackendId>, Denied> {
        let is_meant = |id: &BackendId| backend.is_none_or(|name| **id.name() == *name);
        let meant = || serving.members.each().filter(|it| is_meant(&it.id));
        let departed = departed.iter().filter(|_| self == Self::Close);
        let departed =
            departed.map(|it| BackendId::new(Arc::clone(serving.service.name()), &*it.name));
        let departed = departed.filter(is_meant);
        let members = meant().map(|it| it.id.clone());
        let concerned: Vec<_> = members.chain(departed).collect();
        match (concerned.is_empty(), backend) {
            (true, Some(name)) => {
                let service = serving.service.name();
                let error = format!("service `{service}` has no backend `{name}`");
                let known = serving.members.each().map(|it| it.id.name().to_string());
                let known: Vec<_> = known.take(MOST_NAMES).collect();
                let help = format!("it has {}", known.join(", "));
                Err(Denied::Unknown(Refused::new(error).with_help(help)))
            }
            (true, None) => Err(Denied::Unfit(Refused::new("this service has no backends"))),
            (false, Some(name)) if self == Self::Enable && meant().any(|it| !it.enabled) => {
                let refused = Refused::new(format!("`{name}` is disabled in the file"));
                let help = "write enabled = true, and reload";
                Err(Denied::Unfit(refused.with_help(help)))
            }
            (false, _) => Ok(concerned),
        }
    }
}

fn deadline(seconds: f64) -> Result<Duration, Denied> {
    let time = Duration::try_from_secs_f64(seconds).ok();
    time.filter(|time| *time <= LONGEST_DRAIN).ok_or_else(|| {
        let help = format!("allowed: 0 to {}", LONGEST_DRAIN.as_secs());
        Denied::Unfit(Refused::new("this is no time to drain in").with_help(help))
    })
}

/// There is no service of this `name` among those that are `known`.
pub(super) fn no_service<'s>(name: &str, known: impl Iterator<Item = &'s Arc<str>>) -> Denied {
    let mut names: Vec<_> = known.map(ToString::to_string).collect();
    names.sort();
    names.truncate(MOST_NAMES);
    let help = format!("there is {}", names.join(", "));
    Denied::Unknown(Refused::new(format!("there is no service `{name}`")).with_help(help))
}

/// Names that a refusal lists.
const MOST_NAMES: usize = 20;
