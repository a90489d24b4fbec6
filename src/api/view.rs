//! How everything stands at one moment.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::counted;

/// `GET /v1/view`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct View {
    /// When this was so.
    pub at: String,
    /// The daemon as a whole.
    pub process: Process,
    /// Every service, in the order of the file.
    pub services: Vec<Service>,
}

/// The daemon as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Process {
    /// Of the program.
    pub version: String,
    /// As the kernel knows it.
    pub pid: u32,
    /// When it was ready.
    pub started: String,
    /// Since then.
    pub uptime_seconds: f64,
    /// It drains: no new sessions are taken.
    pub stopping: bool,
    /// Running sessions.
    pub sessions: u64,
    /// Those of them whose service has left the file.
    pub left: Left,
    /// The most there may be.
    pub max_connections: u64,
    /// What it has been short of in the last seconds, so that clients have to wait.
    pub short_of: Option<ShortOf>,
    /// Clients that the limits of `[runtime]` would have kept waiting, but for `dry_run`.
    #[serde(default)]
    pub refusals: Vec<Refusals>,
    /// One per thread that serves.
    pub workers: Vec<Worker>,
    /// What runs.
    pub configuration: Configuration,
    /// What became of reloads.
    pub reloads: Reloads,
    /// What became of alerts.
    pub alerts: Alerts,
    /// Checks so far, of all backends.
    pub checks_total: u64,
    /// How much later than they were due they were sent, together.
    pub checks_late_seconds_total: f64,
    /// Log lines that were not written: whoever reads them was too slow, or gone.
    pub log_lines_dropped_total: u64,
    /// Failures of sessions that passive health has not heard of: it had too many to hear.
    pub failures_unheard_total: u64,
}

/// What a session takes that may be lacking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ShortOf {
    /// Descriptors, of which the process may have so many.
    Descriptors,
    /// Descriptors, of which the machine may have so many.
    DescriptorsOfTheMachine,
    /// The kernel's memory for sockets.
    Memory,
    /// Something else, which the log has in the kernel's words.
    Something,
}

impl ShortOf {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::DescriptorsOfTheMachine => "descriptors of the machine",
            Self::Memory => "memory for sockets",
            Self::Something => "something that accepting takes",
        }
    }
}

/// What became of alerts since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Alerts {
    /// Delivered.
    pub sent_total: u64,
    /// Given up.
    pub failed_total: u64,
    /// Of each alert whose last message was lost, or something of it: what that said.
    #[serde(default)]
    pub lost: Vec<LostAlert>,
}

/// A message of an alert that did not reach whom it was for as it was meant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LostAlert {
    /// The alert's name.
    pub alert: String,
    /// When it was given up.
    pub at: String,
    /// Whom it was for: the host of a webhook, or a program.
    pub to: String,
    /// Why it was lost.
    pub why: String,
    /// What it said, in words.
    pub text: String,
}

/// One thread that serves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Worker {
    /// From 0.
    pub index: u32,
    /// Running sessions.
    pub sessions: u64,
    /// How long it has been at work; the rest of the time it slept.
    pub busy_seconds_total: f64,
    /// Times that it could not accept because the process or the machine was out of something.
    pub accept_errors_total: u64,
    /// Pipes that it holds for splicing, …
    pub pipes: u64,
    /// … and how many of them no session uses.
    pub pipes_pooled: u64,
}

/// The configuration in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Configuration {
    /// Where it was read.
    pub path: Option<String>,
    /// When it took effect.
    pub applied: String,
    /// How many have taken effect, this one included.
    pub generation: u64,
    /// The file at `path` was rejected since: what runs is not what is in it.
    pub rejected: Option<Rejection>,
    /// The file was broken at the start, and the last configuration that had taken effect runs in its place.
    #[serde(default)]
    pub last_good: bool,
    /// What of it takes effect only after a restart, which there has not been since.
    #[serde(default)]
    pub needs_restart: Vec<String>,
}

/// A file whose content was not put in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rejection {
    /// When; of one that is rejected again and again for the same, when it was first.
    pub at: String,
    /// All that is wrong with it, as `file:line:column: …`.
    pub problems: Vec<String>,
}

/// What became of reloads since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reloads {
    /// Took effect.
    pub applied: u64,
    /// Did not.
    pub rejected: u64,
    /// How long the last that took effect needed.
    pub last_duration_seconds: Option<f64>,
}

/// One service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// How it stands, in a word …
    pub standing: Standing,
    /// … and in a sentence, unless all is well.
    pub why: Option<String>,
    /// The name of its strategy.
    pub strategy: String,
    /// Where clients go.
    pub listeners: Vec<Listener>,
    /// Backends that may serve now.
    pub eligible: u32,
    /// All of them.
    pub configured: u32,
    /// As many must be up for the service to be ready.
    pub min_up: u32,
    /// `max_connections` of `[service.limits]`, while as many sessions run: new clients wait.
    pub full_at: Option<u64>,
    /// A later tier serves in the place of those before it, until an operator asks for the fail-back
    /// (`fail_back = "manual"`).
    pub awaits_fail_back: bool,
    /// The last tier that serves for those before it, if any does.
    pub stands_in: Option<StandsIn>,
    /// Who waits for a place.
    pub queue: Queue,
    /// Of its backends; the sessions of those that have left are among those that run.
    pub traffic: Traffic,
    /// Backends that have left, as long as they have sessions.
    pub left: Left,
    /// Clients that were not let in, for each rule of `access` and `limits` that has met one.
    pub refusals: Vec<Refusals>,
    /// How fast bytes may flow, for each limit of `limits` on bandwidth that there is or was.
    #[serde(default)]
    pub throttling: Vec<Throttling>,
    /// Clients whose source had no place in the table that counts sources.
    pub uncounted_sources_total: u64,
    /// Clients that were given no backend.
    pub unserved: Unserved,
    /// Failovers that are over.
    pub failovers_total: u64,
    /// How long the last of them took, until no session could be on its way to the lost backend.
    pub last_failover_seconds: Option<f64>,
    /// How long `min_up` or more of its backends might serve; time in which only an operator kept them from
    /// it counts neither way.
    #[serde(default)]
    pub record: Record,
    /// The file that further backends are read from, if there is one.
    pub backends_file: Option<BackendsFile>,
    /// Every backend, in the order of the file.
    pub backends: Vec<Backend>,
}

impl Service {
    /// How many of those that may serve do; the others stand by.
    pub fn serving(&self) -> u32 {
        let serving = self.backends.iter().filter(|it| it.serving).count();
        let serving = u32::try_from(serving).unwrap_or(u32::MAX);
        // Where nobody may, `when_all_down` has all of them serve regardless.
        serving.min(self.eligible)
    }

    /// `1 backend may serve, 2 needed`, unless as many as `min_up` are `eligible`: what `/readyz` and all who
    /// tell how the service stands say of that.
    pub fn shortfall(eligible: u32, min_up: u32) -> Option<String> {
        let may = counted(eligible.into(), "backend");
        (eligible < min_up).then(|| format!("{may} may serve, {min_up} needed"))
    }
}

/// A tier that serves because too few of those before it may.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StandsIn {
    /// The `priority` of its backends.
    pub priority: u32,
    /// Since when it is the last that does.
    pub since: String,
}

/// Backends that are in no file and behind no name any more, and whose sessions go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Left {
    /// How many they are.
    pub backends: u32,
    /// Their sessions.
    pub sessions: u64,
    /// Which those of a service are that has not left, by name; the first hundred.
    #[serde(default)]
    pub named: Vec<Departed>,
}

/// A backend that has left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Departed {
    /// What it was called.
    pub name: String,
    /// Those that go on there.
    pub sessions: u64,
}

/// A file that backends of a service are read from, as often as it changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BackendsFile {
    /// Where it is.
    pub path: String,
    /// Backends of the list in force.
    pub backends: u32,
    /// It has vanished or its content was rejected, as long as the list in force is the last good one for that.
    pub rejected: Option<Rejection>,
    /// It is rejected because it is not there.
    #[serde(default)]
    pub missing: bool,
}

/// How a service stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Everybody who is meant to serve may.
    #[default]
    Ok,
    /// Some may not, or nobody of the first tier, or fewer than `min_up`, whoever wanted it so.
    Degraded,
    /// Nobody may.
    Down,
}

/// One bound address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Listener {
    /// As bound: the port is never 0.
    pub address: String,
    /// Sessions that came in here for this service.
    pub accepted_total: u64,
    /// Handshakes that the kernel has dropped because as many clients as `backlog` allows waited to be
    /// accepted: by a limit, or because more come than are taken. While it closes, those that it lets not begin
    /// any more count as well: the kernel has one count for both.
    pub dropped_total: u64,
    /// Those of its sessions that are running.
    pub sessions: u64,
    /// Further backends that were tried after a connect had failed.
    pub retries_total: u64,
    /// Times that a source address had no port left for a connection to a backend.
    pub ports_exhausted_total: u64,
    /// Those that are over, by how.
    pub endings: Vec<Ended>,
    /// How long backends took to accept a session.
    pub connect: Histogram,
    /// How long the sessions lasted that are over.
    pub duration: Histogram,
    /// How long clients waited for a place at a backend.
    pub queue: Histogram,
}

/// Sessions that have ended in one way, in the words of the session log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ended {
    /// Whose act ended them: `client`, `backend`, `ballast`.
    pub who: String,
    /// How far they had come: `accept`, `proxy-header`, `queue`, `connect`, `relay`, `drain`, …
    pub phase: String,
    /// Why: `finished`, `reset`, `refused`, …
    pub cause: String,
    /// How many.
    pub total: u64,
}

/// How long things took.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Histogram {
    /// Upper bounds, ascending; empty as long as nothing was counted.
    pub bounds_seconds: Vec<f64>,
    /// How many took at most as long as the bound at this place, and longer than the one before; the
    /// last is of those that took longer than any.
    pub counts: Vec<u64>,
    /// All of them together.
    pub total_seconds: f64,
}

/// Who waits for a place at a backend that is full.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Queue {
    /// Now.
    pub waiting: u64,
    /// The most there may be; 0 is no queue.
    pub size: u64,
    /// Clients that got a place, however short their wait.
    pub placed_total: u64,
    /// Clients that were turned away because as many waited as may.
    pub full_total: u64,
    /// Clients that waited for as long as they may.
    pub timed_out_total: u64,
    /// Clients that left.
    pub left_total: u64,
    /// Clients that were turned away because nobody was left who may serve.
    pub unserved_total: u64,
}

/// What one rule has done to clients.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Refusals {
    /// `access`, `max_per_source`, …
    pub rule: String,
    /// Clients that it has refused.
    pub refused_total: u64,
    /// When the last of them was.
    #[serde(default)]
    pub last: Option<String>,
    /// Clients that it would have refused, but for `dry_run`.
    pub would_be_total: u64,
}

/// A limit on bandwidth, and what it has done to sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Throttling {
    /// `to_client`, `to_client_per_session`, …
    pub cap: String,
    /// What it is now; `null` if there is no such limit any more.
    pub bytes_per_second: Option<u64>,
    /// Sessions that it has slowed down.
    pub slowed_total: u64,
    /// How long their bytes have waited, together.
    pub slowed_seconds_total: f64,
    /// Sessions that it would have slowed down, but for `dry_run`.
    pub would_be_total: u64,
    /// By how long, together.
    pub would_be_seconds_total: f64,
}

/// Clients that were accepted, given no backend, and reset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Unserved {
    /// So many so far.
    pub total: u64,
    /// When the last of them was.
    pub last: Option<String>,
    /// Why, the most frequent cause first.
    pub causes: Vec<Count>,
}

/// How often something has happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Count {
    /// What, in the words of the session log.
    pub cause: String,
    /// So many times so far.
    pub total: u64,
    /// When last.
    #[serde(default)]
    pub last: Option<String>,
}

/// What sessions have come to since the identity they are counted for appeared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Traffic {
    /// Running, those that are being connected included.
    pub sessions: u64,
    /// Connected.
    pub sessions_total: u64,
    /// From clients. Of a session that runs, up to 64 KiB are not in it yet.
    pub to_backend_bytes_total: u64,
    /// To clients, likewise.
    pub to_client_bytes_total: u64,
    /// Connects that failed.
    pub connect_failures_total: u64,
    /// Sessions that were failed here and found another backend.
    pub sessions_moved_total: u64,
    /// Sessions that were failed here and lost.
    pub sessions_hurt_total: u64,
    /// Sessions that ended with every byte delivered.
    pub sessions_finished_total: u64,
    /// Connected sessions that the client broke off, …
    pub broken_by_client_total: u64,
    /// … the backend, …
    pub broken_by_backend_total: u64,
    /// … or Ballast.
    pub broken_by_ballast_total: u64,
    /// What connecting took, of all that connected together.
    pub connect_seconds_total: f64,
    /// How long the sessions lasted that are over, together.
    pub session_seconds_total: f64,
}

/// One backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Backend {
    /// Its name, unique in its service.
    pub name: String,
    /// Where it is; `null` while its name leads nowhere.
    pub address: Option<String>,
    /// What its checks say.
    pub state: State,
    /// Since when; while it is failing or recovering, since the first check that said so.
    pub since: Option<String>,
    /// Whether new sessions go to it.
    pub serving: bool,
    /// Why it does not serve, or what speaks against it; `null` when all is well.
    pub why: Option<String>,
    /// As in the file.
    pub weight: u32,
    /// What counts of it now (slow start, its agent, an operator), in thousandths of the weight's unit; 0
    /// when it does not serve.
    pub effective_weight_thousandths: u64,
    /// Its tier, 0 first.
    pub priority: u32,
    /// As in the file.
    pub enabled: bool,
    /// The most sessions at a time, if there is such a limit.
    pub max_connections: Option<u32>,
    /// Kept out because its sessions failed, until then.
    pub ejected_until: Option<String>,
    /// It answers its checks slower than it used to.
    pub suspect: bool,
    /// What its agent asks for, if that is other than to serve in full: `drain`, `75%`.
    pub agent: Option<String>,
    /// What an operator has said while the daemon runs, where that differs from the file.
    pub admin: Option<Admin>,
    /// What asks whether it is alive.
    pub check: Option<Check>,
    /// Its sessions.
    pub traffic: Traffic,
    /// How available it has been.
    pub record: Record,
}

impl Backend {
    /// Its weight in words: `3`, or `1.5 of 3` when less of it counts.
    pub fn told_weight(&self) -> String {
        let whole = u64::from(self.weight) * 1000;
        let said = self.admin.as_ref().map_or(100, |it| it.weight_percent);
        let effective = match self.effective_weight_thousandths {
            it if it == whole => whole / 100 * u64::from(said),
            it => it,
        };
        match effective {
            _ if !self.serving || effective == whole => self.weight.to_string(),
            _ => format!("{} of {}", effective as f64 / 1000.0, self.weight),
        }
    }
}

/// Whether a backend answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// No verdict yet.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It answers no more, but has not been silent often enough to be down.
    Failing,
    /// It does not.
    Down,
    /// It answers again, but not yet often enough to be up.
    Recovering,
}

/// What an operator has said of a backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Admin {
    /// `serve`, `drain` or `maintenance`.
    pub duty: String,
    /// Of the configured weight.
    pub weight_percent: u16,
    /// Since when, …
    #[serde(default)]
    pub since: Option<String>,
    /// … and who said it: `uid 0` through a Unix socket, an address over TCP.
    #[serde(default)]
    pub by: Option<String>,
    /// When what is left of its sessions is closed.
    #[serde(default)]
    pub deadline: Option<String>,
}

/// A check, and how it last went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Check {
    /// `tcp`, `http`, …
    pub kind: String,
    /// Where it goes.
    pub address: String,
    /// How long the last one took that was answered.
    pub latency_seconds: Option<f64>,
    /// What is usual, by the slow moving average.
    pub usual_latency_seconds: Option<f64>,
    /// Verdicts in a row that speak against the state it is in, …
    pub against: u32,
    /// … and how many of them it takes.
    pub needed: u32,
    /// What the last failed one met.
    pub last_failure: Option<String>,
    /// Why it cannot be run; what is known of the backend is from before then.
    #[serde(default)]
    pub not_run: Option<String>,
    /// Verdicts so far.
    pub probes_total: u64,
    /// Those of them that failed.
    pub failures_total: u64,
}

/// How available a backend or a service has been, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Record {
    /// Time up.
    pub up_seconds: f64,
    /// Time down.
    pub down_seconds: f64,
    /// Of a service: time with fewer than `min_up` because an operator had them out; neither up nor down.
    #[serde(default)]
    pub set_aside_seconds: f64,
    /// Times it went down.
    pub failures: u64,
    /// Times it came back.
    pub recoveries: u64,
    /// Failures that followed a return within a minute.
    pub flaps: u64,
    /// Mean time between failures.
    pub mtbf_seconds: Option<f64>,
    /// Mean time to repair.
    pub mttr_seconds: Option<f64>,
    /// 0 to 1.
    pub availability: Option<f64>,
}
