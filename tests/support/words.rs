//! What the daemon says on stderr, in one place: the tests' only knowledge of its wording.

/// `message` of the line that names a bound address (`service`, `listener`).
pub const LISTENING: &str = "listening";
/// `message` of the line that names an address of the admin API (`listener`).
pub const ADMIN_LISTENS: &str = "admin endpoint listens";
/// `message` of the line after the last listener.
pub const READY: &str = "ready";
/// `message` of an accepted reload (`plan`).
pub const RELOADED: &str = "reloaded";
/// `message` of a rejected reload (`problems`).
pub const REJECTED: &str = "reload rejected";
/// `message` of a transition to up (`service`, `backend`, `after`, `eligible`).
pub const BACKEND_UP: &str = "backend up";
/// `message` of a transition to down (`service`, `backend`, `why`, `after`, `eligible`).
pub const BACKEND_DOWN: &str = "backend down";
/// `message` of a backend that is as down as before a restart (`service`, `backend`, `why`, `after`).
pub const STILL_DOWN: &str = "backend still down";
/// `message` of a decision about a backend whose sessions fail (`evidence`, `decision`).
pub const SESSIONS_FAIL: &str = "sessions fail";
/// `message` when a backend is taken out without a probe (`out`, `eligible`).
pub const EJECTED: &str = "backend ejected";
/// `message` when it returns from that (`eligible`).
pub const EJECTION_OVER: &str = "ejection over";
/// `message` of a backend that answers slower than it used to (`latency_ms`, `usual_ms`, `phi`).
pub const SUSPECT: &str = "backend suspect";
/// `message` when it answers as usual again.
pub const NO_LONGER_SUSPECT: &str = "backend no longer suspect";
/// `message` of an alert that was delivered (`alert`, `events`, `attempts`, `held_back`).
pub const ALERT_SENT: &str = "alert sent";
/// `message` of an alert that was given up (`alert`, `events`, `attempts`, `error`).
pub const ALERT_NOT_SENT: &str = "alert not sent";
/// `message` of a failover that is over (`began`, `detected_ms`, `moved_ms`, `total_ms`).
pub const FAILOVER: &str = "failover";
/// `message` of one that the report remembers.
pub const PAST_FAILOVER: &str = "past failover";
/// `message` when backends have come or gone without a reload (`plan`, `changes`, `eligible`).
pub const CHANGED: &str = "backends changed";
/// `message` of a name with more addresses than are used (`name`, `left_out`).
pub const TOO_MANY_ADDRESSES: &str = "name has too many addresses";
/// `message` of a name behind which is the service itself (`service`, `backend`, `address`).
pub const CIRCLE: &str = "name leads to a listener of its own service";
/// `message` when nobody answers for a name (`name`, `services`, `error`).
pub const LOOK_UP_FAILS: &str = "name look-up fails";
/// `message` when somebody does again (`name`, `services`).
pub const LOOK_UP_WORKS: &str = "name look-up works again";
/// `message` when a name has no address (`name`, `services`, `hold`).
pub const NO_ADDRESS: &str = "name has no address";
/// `message` of a list of backends that is not used (`service`, `problems`).
pub const LIST_REJECTED: &str = "backends file rejected";
/// `message`, at debug, of a probe that speaks against an up backend (`streak`, `why`).
pub const MISSED: &str = "heartbeat missed";
/// `message`, at debug, of a probe that speaks for a down backend (`streak`).
pub const ANSWERED: &str = "heartbeat answered";
/// `message` of a certificate that expires soon (`left`).
pub const EXPIRES: &str = "certificate expires";
/// `message` of a check that cannot be run (`why`).
pub const NOT_RUN: &str = "check not run";
/// `message` when nobody can start programs any more.
pub const RUNNER_GONE: &str = "the runner is gone";
/// `message` when another one was started.
pub const RUNNER_BACK: &str = "the runner is back";
/// `message` when there is none yet (`error`).
pub const RUNNER_NOT_BACK: &str = "the runner cannot be started again yet";
/// `message` of what the daemon has given up (`user`, `capabilities`).
pub const CONFINED: &str = "confined";
/// `message` of a kernel that does not limit system calls (`error`).
pub const NO_SECCOMP: &str = "no seccomp";
/// `message` of a kernel that does not limit files (`error`).
pub const NO_LANDLOCK: &str = "no Landlock";
/// `message` of a user that the daemon should have become (`user`, `wanted`).
pub const ONLY_ROOT: &str = "only root can become another user";
/// `message` of what a state file says and cannot be (`file`, `odd`).
pub const STATE_ODD: &str = "state left out that cannot be";
/// `message` of a state file that is not there yet.
pub const NO_STATE: &str = "no state yet";
/// `message` of a state file that is not used (`why`).
pub const STATE_IGNORED: &str = "state ignored";
/// `message` of one that cannot be written.
pub const STATE_NOT_SAVED: &str = "state not saved";
/// `message` when another configuration runs than the one in the file (`problems`).
pub const BROKEN: &str = "the configuration is broken";
/// `message` when a tier joins (`service`, `priority`, `why`, `eligible`).
pub const TAKES_OVER: &str = "standby takes over";
/// `message` when a tier need not serve any more and does for now (`until`).
pub const STAYS: &str = "standby stays";
/// `message` when it leaves (`why`).
pub const STANDS_DOWN: &str = "standby stands down";
/// `message` when nobody is up, and all are tried.
pub const ALL_USED: &str = "no backend is up";
/// `message` of a session's line.
pub const SESSION: &str = "session";
/// `message` when a stop begins.
pub const STOPPING: &str = "stopping";
/// `message` when it is over (`closed`).
pub const STOPPED: &str = "stopped";

/// `message` when a reload has made a socket again that was gone from its path (`service`, `listener`).
pub const MADE_ANEW: &str = "socket made anew";

/// `message` of a listener whose clients do not find it (`listener`, `error`).
pub const TAKES_NOBODY: &str = "listener takes no new clients";

/// `message` when every session that may be is there (`max_connections`).
pub const PAUSES: &str = "accepting pauses";
/// `message` when there is room again (`max_connections`).
pub const GOES_ON: &str = "accepting goes on";
/// `message` of the first line that SIGUSR1 asks for.
pub const REPORT: &str = "report";
/// `message` of the lines behind it, one for each backend (`state`, `sessions`, `served`).
pub const BACKEND: &str = "backend";
/// `message` when a listener cannot accept for want of something (`listener`, `error`).
pub const RESTS: &str = "accepting rests";
/// `message` when that has not been so for a while (`short_of`).
pub const RESTS_NO_MORE: &str = "accepting rests no more";
/// `message` of a panic (`panic`, `location`, `thread`).
pub const DEFECT: &str = "internal error";
/// `message`, at debug, when the kernel grants no pipe.
pub const NO_PIPE: &str = "no pipe";

/// `why` of a refused connect.
pub const REFUSED: &str = "refused";
/// `why` of a connect without an answer.
pub const TIMED_OUT: &str = "timed out";
/// `cause` of a session that went well.
pub const FINISHED: &str = "finished";
/// `cause` of a reset.
pub const RESET: &str = "reset";
/// `cause` of a session that has panicked.
pub const PANICKED: &str = "internal error";
/// `cause` when there is no port or descriptor left.
pub const EXHAUSTED: &str = "out of local ports or descriptors";
/// `cause` of the idle timeout.
pub const IDLE: &str = "idle timeout";
/// `cause` of the half-closed timeout.
pub const HALF_CLOSED: &str = "half-closed timeout";
/// `message` when nobody of a service may serve (`service`).
pub const NOBODY_SERVES: &str = "no backend may serve: clients are reset";
/// `message` when clients of a service are served again (`service`).
pub const SERVED_AGAIN: &str = "clients are served again";
/// `cause` when nobody may serve.
pub const NO_BACKEND: &str = "no eligible backend";
/// `cause` of a client that is no proxy of `accept_from`.
pub const UNTRUSTED: &str = "not in accept_from";
/// `cause` of one whose PROXY header is none.
pub const BAD_HEADER: &str = "bad proxy_protocol header";
/// `cause` of a client whom `[service.access]` does not let in.
pub const DENIED: &str = "denied by access";
/// `cause` of one whose source has all the sessions it may have.
pub const TOO_MANY: &str = "over max_per_source";
/// `cause` of one whose source connects too often.
pub const TOO_OFTEN: &str = "over rate_per_source";
/// `message` of clients that were refused since the last such line (`refused`, `would_be`).
pub const REFUSED_CLIENTS: &str = "clients refused";
/// `message` of the line that SIGUSR1 asks for, of a service that has refused clients.
pub const ADMISSION: &str = "admission";
pub const BANDWIDTH: &str = "bandwidth";
/// `cause` of a drain deadline or a second signal.
pub const STOPPED_CAUSE: &str = "stopped";
/// `message`, at debug, of a client that waits for a place (`client`).
pub const QUEUED: &str = "queued";
/// `message` of the line that SIGUSR1 asks for, of a service whose clients had to wait (`waiting`).
pub const QUEUE: &str = "queue";
/// `cause` when as many wait as may.
pub const QUEUE_FULL: &str = "queue full";
/// `cause` of `queue.timeout`.
pub const QUEUE_TIMEOUT: &str = "queue timeout";
/// `cause` of `max_lifetime`.
pub const LIFETIME: &str = "maximum lifetime";
/// `cause` under `on_down = "close"`.
pub const BACKEND_DOWN_CAUSE: &str = "backend down";
/// `message` when sessions of a backend that went down begin to be closed (`backend`, `sessions`).
pub const CLOSING: &str = "closing sessions";
/// `message` when they are not any more (`backend`, `left`).
pub const CLOSING_ENDS: &str = "closing ends";
pub const OPERATED: &str = "changed by an operator";
pub const WRONG_TOKEN: &str = "wrong token at the admin endpoint";
