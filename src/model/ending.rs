//! How a session was over: who ended it, in which phase, and why.

use std::fmt;
use std::io;

/// The whole answer, as the session log tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Whose act ended the session.
    pub who: Who,
    /// How far the session had come.
    pub phase: Phase,
    /// What happened.
    pub cause: Cause,
}

impl Ending {
    /// An ending from its three parts.
    pub fn new(who: Who, phase: Phase, cause: Cause) -> Self {
        Self { who, phase, cause }
    }

    /// Whether both directions ended with every byte delivered and a FIN.
    pub fn is_clean(&self) -> bool {
        self.cause == Cause::Finished
    }

    /// Whether a client that wanted a backend was given none, though it had not left and Ballast did
    /// not stop.
    pub fn is_unserved(&self) -> bool {
        let wanted = matches!(self.phase, Phase::Accept | Phase::Queue | Phase::Connect);
        wanted && self.who != Who::Client && self.cause != Cause::Stopped
    }
}

/// Whose act ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The peer that connected to Ballast.
    Client,
    /// The server that Ballast connected to.
    Backend,
    /// Ballast itself.
    Ballast,
}

impl Who {
    /// All of them, each at its place.
    pub const ALL: [Self; 3] = [Self::Client, Self::Backend, Self::Ballast];

    /// Where it stands among [`ALL`](Self::ALL).
    pub fn place(self) -> usize {
        self as usize
    }

    /// What it is called, in the log and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Who::Client => "client",
            Who::Backend => "backend",
            Who::Ballast => "ballast",
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How far a session had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Accepted, no backend picked yet.
    Accept,
    /// Waiting for the PROXY header that says who the client is.
    ProxyHeader,
    /// Being asked for, and counted towards, its limits.
    Admission,
    /// Waiting for a place at a backend.
    Queue,
    /// Connecting to a backend.
    Connect,
    /// Moving bytes.
    Relay,
    /// Ending under the drain deadline of a stop.
    Drain,
}

impl Phase {
    /// All of them, each at its place.
    pub const ALL: [Self; 7] = [
        Self::Accept,
        Self::ProxyHeader,
        Self::Admission,
        Self::Queue,
        Self::Connect,
        Self::Relay,
        Self::Drain,
    ];

    /// Where it stands among [`ALL`](Self::ALL).
    pub fn place(self) -> usize {
        self as usize
    }

    /// What it is called, in the log and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Accept => "accept",
            Phase::ProxyHeader => "proxy-header",
            Phase::Admission => "admission",
            Phase::Queue => "queue",
            Phase::Connect => "connect",
            Phase::Relay => "relay",
            Phase::Drain => "drain",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What ended a session, or made a connect or a probe fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Both directions ended with a FIN after their last byte.
    Finished,
    /// The peer sent a RST.
    Reset,
    /// The connect was refused.
    Refused,
    /// No answer within the timeout.
    TimedOut,
    /// The network or the host was reported unreachable.
    Unreachable,
    /// No local address, port or descriptor was left.
    Exhausted,
    /// Only proxies in `accept_from` may connect, and it is none of them.
    Untrusted,
    /// What should have been a PROXY header was none, or not whole.
    BadHeader,
    /// `[service.access]` does not let it in.
    Denied,
    /// Its source has `limits.max_per_source` sessions already.
    TooMany,
    /// Its source connects more often than `limits.rate_per_source`.
    TooOften,
    /// No backend was eligible.
    NoBackend,
    /// Every backend was full, and so was the queue.
    QueueFull,
    /// No backend had room within `queue.timeout`.
    QueueTimeout,
    /// No byte either way for `timeouts.idle`.
    Idle,
    /// One direction had ended and the other was silent for `timeouts.half_closed`.
    HalfClosed,
    /// The peer acknowledged nothing although data was waiting for it.
    Unacknowledged,
    /// It had lived for `session.max_lifetime`.
    Lifetime,
    /// Its backend went down, and the service closes the sessions of such a backend.
    BackendDown,
    /// The drain deadline of a stop passed, or a second signal came.
    Stopped,
    /// A defect in Ballast: the session panicked.
    Panicked,
    /// An operator has closed it, or has let its backend drain until then.
    Closed,
    /// Any other error of the operating system, by its number.
    Os(i32),
}

impl Cause {
    /// All of them, each at its place; that of the operating system without its number.
    pub const ALL: [Self; 23] = [
        Self::Finished,
        Self::Reset,
        Self::Refused,
        Self::TimedOut,
        Self::Unreachable,
        Self::Exhausted,
        Self::Untrusted,
        Self::BadHeader,
        Self::Denied,
        Self::TooMany,
        Self::TooOften,
        Self::NoBackend,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::Idle,
        Self::HalfClosed,
        Self::Unacknowledged,
        Self::Lifetime,
        Self::BackendDown,
        Self::Stopped,
        Self::Panicked,
        Self::Closed,
        Self::Os(0),
    ];

    /// Where it stands among [`ALL`](Self::ALL), whatever its number.
    pub fn place(self) -> usize {
        match self {
            Cause::Finished => 0,
            Cause::Reset => 1,
            Cause::Refused => 2,
            Cause::TimedOut => 3,
            Cause::Unreachable => 4,
            Cause::Exhausted => 5,
            Cause::Untrusted => 6,
            Cause::BadHeader => 7,
            Cause::Denied => 8,
            Cause::TooMany => 9,
            Cause::TooOften => 10,
            Cause::NoBackend => 11,
            Cause::QueueFull => 12,
            Cause::QueueTimeout => 13,
            Cause::Idle => 14,
            Cause::HalfClosed => 15,
            Cause::Unacknowledged => 16,
            Cause::Lifetime => 17,
            Cause::BackendDown => 18,
            Cause::Stopped => 19,
            Cause::Panicked => 20,
            Cause::Closed => 21,
            Cause::Os(_) => 22,
        }
    }

    /// What it is called in metrics: one word out of a set that does not grow with what happens. What a
    /// rule of the file has refused is called as the rule is there.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Finished => "finished",
            Cause::Reset => "reset",
            Cause::Refused => "refused",
            Cause::TimedOut => "timed-out",
            Cause::Unreachable => "unreachable",
            Cause::Exhausted => "exhausted",
            Cause::Untrusted => "accept_from",
            Cause::BadHeader => "proxy_protocol",
            Cause::Denied => "access",
            Cause::TooMany => "max_per_source",
            Cause::TooOften => "rate_per_source",
            Cause::NoBackend => "no-backend",
            Cause::QueueFull => "queue-full",
            Cause::QueueTimeout => "queue-timeout",
            Cause::Idle => "idle",
            Cause::HalfClosed => "half-closed",
            Cause::Unacknowledged => "unacknowledged",
            Cause::Lifetime => "lifetime",
            Cause::BackendDown => "backend-down",
            Cause::Stopped => "stopped",
            Cause::Panicked => "panicked",
            Cause::Closed => "closed",
            Cause::Os(_) => "os",
        }
    }

    /// The cause that an I/O error stands for.
    pub fn from_io(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        // Kinds are an open set in std; what is not named here is told by its number.
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "ErrorKind is non-exhaustive"
        )]
        match error.kind() {
            Kind::ConnectionRefused => Cause::Refused,
            Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => Cause::Reset,
            Kind::TimedOut => Cause::TimedOut,
            Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => {
                Cause::Unreachable
            }
            Kind::AddrNotAvailable => Cause::Exhausted,
            _ => match error.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN) => {
                    Cause::Exhausted
                }
                Some(number) => Cause::Os(number),
                None => Cause::Os(0),
            },
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Finished => "finished",
            Cause::Reset => "reset",
            Cause::Refused => "refused",
            Cause::TimedOut => "timed out",
            Cause::Unreachable => "unreachable",
            Cause::Exhausted => "out of local ports or descriptors",
            Cause::Untrusted => "not in accept_from",
            Cause::BadHeader => "bad proxy_protocol header",
            Cause::Denied => "denied by access",
            Cause::TooMany => "over max_per_source",
            Cause::TooOften => "over rate_per_source",
            Cause::NoBackend => "no eligible backend",
            Cause::QueueFull => "queue full",
            Cause::QueueTimeout => "queue timeout",
            Cause::Idle => "idle timeout",
            Cause::HalfClosed => "half-closed timeout",
            Cause::Unacknowledged => "peer acknowledged nothing",
            Cause::Lifetime => "maximum lifetime",
            Cause::BackendDown => "backend down",
            Cause::Stopped => "stopped",
            Cause::Panicked => "internal error",
            Cause::Closed => "closed by an operator",
            Cause::Os(number) => return write!(f, "{}", io::Error::from_raw_os_error(*number)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn everything_stands_at_its_place_and_has_a_name_of_its_own() {
        let in_order = |places: Vec<usize>| places.iter().copied().eq(0..places.len());
        assert!(in_order(Who::ALL.map(Who::place).to_vec()));
        assert!(in_order(Phase::ALL.map(Phase::place).to_vec()));
        assert!(in_order(Cause::ALL.map(Cause::place).to_vec()));
        let names: BTreeSet<_> = Cause::ALL.map(Cause::name).into();
        assert_eq!(names.len(), Cause::ALL.len());
        assert_eq!(Cause::Os(92).place(), Cause::Os(0).place());
    }

    #[test]
    fn a_client_is_unserved_unless_it_had_a_backend_or_left_or_ballast_stopped() {
        let unserved = [
            (Who::Backend, Phase::Connect, Cause::Refused),
            (Who::Backend, Phase::Connect, Cause::TimedOut),
            (Who::Ballast, Phase::Connect, Cause::Exhausted),
            (Who::Ballast, Phase::Queue, Cause::QueueFull),
            (Who::Ballast, Phase::Queue, Cause::QueueTimeout),
            (Who::Ballast, Phase::Queue, Cause::NoBackend),
            (Who::Ballast, Phase::Accept, Cause::NoBackend),
        ];
        let otherwise = [
            (Who::Ballast, Phase::Queue, Cause::Stopped),
            (Who::Ballast, Phase::Connect, Cause::Stopped),
            (Who::Client, Phase::Queue, Cause::Reset),
            (Who::Ballast, Phase::ProxyHeader, Cause::Untrusted),
            (Who::Ballast, Phase::ProxyHeader, Cause::TimedOut),
            (Who::Ballast, Phase::Admission, Cause::Denied),
            (Who::Client, Phase::Connect, Cause::Reset),
            (Who::Backend, Phase::Relay, Cause::Reset),
            (Who::Ballast, Phase::Drain, Cause::Stopped),
        ];
        let is_unserved = |&(who, phase, cause): &_| Ending::new(who, phase, cause).is_unserved();
        assert!(unserved.iter().all(is_unserved));
        assert!(!otherwise.iter().any(is_unserved));
    }
}
