//! What checks find besides a verdict and an operator should know of in time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Supervisor;
use crate::check::Unsent;
use crate::config::written;
use crate::control::probe::Probed;
use crate::health::Kind;

impl Supervisor {
    /// Tells of a check that cannot be run, and of a certificate that expires; once, and of the
    /// latter again from time to time.
    pub(super) fn warn(&mut self, probed: &Probed) {
        let id = &probed.target;
        match &probed.finding {
            Err(unsent) => {
                let begins = self.running.targets.mute(id, unsent);
                for user in self.running.users.get(id).into_iter().flatten() {
                    let (service, backend) = (user.id.service(), user.id.name());
                    let address = id.address;
                    match unsent {
                        Unsent::Program(_) | Unsent::Defect if begins => {
                            tracing::warn!(%service, %backend, %address, why = %unsent, "check not run");
                        }
                        Unsent::Program(_) | Unsent::Defect | Unsent::Exhausted(_) => {
                            tracing::debug!(%service, %backend, %address, why = %unsent, "check not run");
                        }
                    }
                }
            }
            Ok(finding) => {
                let (Kind::Tls(tls), Some(expires)) = (&id.check.kind, finding.expires) else {
                    return;
                };
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                // Before 1970 nothing has expired.
                let now = now.map_or(Duration::ZERO, |now| now);
                let end = Duration::from_secs(u64::try_from(expires).unwrap_or(0));
                let left = end.saturating_sub(now);
                if !self.running.targets.expires(id, left <= tls.expires_within) {
                    return;
                }
                let left = Duration::from_secs(left.as_secs());
                for user in self.running.users.get(id).into_iter().flatten() {
                    tracing::warn!(
                        service = %user.id.service(),
                        backend = %user.id.name(),
                        address = %id.address,
                        left = %written(left),
                        at = %humantime::format_rfc3339_seconds(UNIX_EPOCH + end),
                        "{}",
                        match left.is_zero() {
                            true => "certificate has expired",
                            false => "certificate expires",
                        }
                    );
                }
            }
        }
    }
}
