//! What snapshots are built from, and the building, which is done beside control.

use std::sync::Arc;

use super::members::Members;
use crate::config::{ServiceConfig, SessionLog};
use crate::control::targets::Targets;
use crate::health::Decision;
use crate::model::Backend;
use crate::pool::{Admission, Gate, Reserve, Snapshot, Throttle};
use crate::strategy::{Candidate, Strategy};

impl Members {
    /// Everything that a snapshot is built from, as was decided.
    pub(in crate::control) fn blueprint(
        &self,
        decision: &Decision,
        targets: &Targets,
        epoch: u64,
        revision: u64,
    ) -> Blueprint {
        Blueprint {
            epoch,
            revision,
            config: self.config.clone(),
            session_log: self.session_log,
            gate: Arc::clone(&self.gate),
            throttle: Arc::clone(&self.throttle),
            serving: self.line_up(&decision.serving, decision.regardless, targets),
            reserve: self.line_up(&decision.reserve, decision.reserve_regardless, targets),
            nobody: decision
                .serving
                .is_empty()
                .then(|| self.absences(targets).into()),
        }
    }

    /// `candidates` as picks see them; `regardless` of their health, picks skip none.
    fn line_up(&self, candidates: &[Candidate], regardless: bool, targets: &Targets) -> LineUp {
        // A decision keeps the order of the members, so one pass pairs the two.
        let mut members = self.all.iter();
        let (candidates, backends) = candidates
            .iter()
            .filter_map(|candidate| {
                let member = members.find(|member| member.id == candidate.id)?;
                let id = member.target.as_ref()?;
                let mut backend = Backend::new(
                    member.id.clone(),
                    id.address,
                    candidate.weight,
                    Arc::clone(&member.load),
                    Arc::clone(targets.get(id)?.down()),
                )
                .with_portion(candidate.portion)
                .capped(member.max_connections.is_some())
                .marked(member.mark);
                if regardless {
                    backend = backend.regardless();
                }
                let backend = Arc::new(backend);
                Some((candidate.clone(), backend))
            })
            .unzip();
        LineUp {
            candidates,
            backends,
        }
    }
}

/// Backends that serve together, and what a strategy over them is built from.
#[derive(Debug)]
struct LineUp {
    candidates: Vec<Candidate>,
    backends: Vec<Arc<Backend>>,
}

impl LineUp {
    fn build(self, config: &ServiceConfig) -> (Vec<Arc<Backend>>, Box<dyn Strategy>) {
        let strategy = config.strategy.build(&self.candidates, &config.parameters);
        (self.backends, strategy)
    }
}

/// A snapshot to be built: laying out a large table takes long, so it is done beside control.
#[derive(Debug)]
pub(in crate::control) struct Blueprint {
    epoch: u64,
    revision: u64,
    config: ServiceConfig,
    session_log: SessionLog,
    gate: Arc<Gate>,
    throttle: Arc<Throttle>,
    serving: LineUp,
    reserve: LineUp,
    /// Why nobody is in either.
    nobody: Option<Box<str>>,
}

/// A blueprint carried out.
#[derive(Debug)]
pub(in crate::control) struct Built {
    /// Which service it is for.
    pub(in crate::control) service: Arc<str>,
    /// Which configuration it was made from.
    pub(in crate::control) epoch: u64,
    /// Which state of health it was made from.
    pub(in crate::control) revision: u64,
    /// The table.
    pub(in crate::control) snapshot: Snapshot,
}

impl Blueprint {
    /// Builds the snapshot.
    pub(in crate::control) fn build(self) -> Built {
        let Self {
            epoch,
            revision,
            config,
            session_log,
            gate,
            throttle,
            serving,
            reserve,
            nobody,
        } = self;
        let is_throttled = config.admission.limits.caps.iter().any(Option::is_some);
        let all = serving.backends.iter().chain(&reserve.backends);
        let capped = all.clone().any(|backend| backend.is_capped());
        let (backends, strategy) = serving.build(&config);
        let reserve = (!reserve.backends.is_empty()).then(|| {
            let (backends, strategy) = reserve.build(&config);
            Box::new(Reserve { backends, strategy })
        });
        Built {
            service: config.name,
            epoch,
            revision,
            snapshot: Snapshot {
                capped,
                backends,
                strategy,
                reserve,
                nobody,
                queue: config.queue,
                admission: Admission::new(&config.admission, &config.proxy, &gate),
                throttle: is_throttled.then_some(throttle),
                send_header: config.proxy.send,
                outgoing: config.socket.outgoing,
                timeouts: config.timeouts,
                max_lifetime: config.max_lifetime,
                retries: config.retries,
                relay: config.relay,
                session_log,
            },
        }
    }
}
