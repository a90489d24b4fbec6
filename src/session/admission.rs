//! Whether a client may come in: who it is, if a proxy has to say so, and then its service's rules.

use std::sync::Arc;
use std::time::Instant;

use super::{Context, accepted, header};
use crate::admission::Rule;
use crate::model::{Cause, Ending, Phase, Who};
use crate::net::{Arrival, Socket, Ticket};
use crate::pool::Admission;
use crate::proxy_protocol::Header;
use crate::telemetry::Record;

/// Asks all that `admission` has to ask. A client that is refused is reset, as its socket is dropped.
pub(super) async fn let_in(
    admission: Arc<Admission>,
    client: Arrival,
    context: &Context,
    ticket: &Ticket,
    record: &mut Record,
) -> Result<(Socket, Option<Header>), Ending> {
    let Some(rules) = &admission.accept else {
        // Before anything is spent on it.
        admit(&admission, record)?;
        return Ok((accepted(client)?, None));
    };
    let refuse = |ending: Ending, record: &mut Record| {
        // That it has left, or was told to end, is no refusal.
        if ending.cause == Cause::Untrusted {
            refuse(&admission, Rule::AcceptFrom, record);
        } else if [Cause::BadHeader, Cause::TimedOut].contains(&ending.cause) {
            refuse(&admission, Rule::ProxyProtocol, record);
        }
        ending
    };
    if let Err(ending) = header::trust(rules, record.client()) {
        return Err(refuse(ending, record));
    }
    let mut client = accepted(client)?;
    match header::receive(rules, &mut client, context, ticket, record).await {
        Ok(heard) => {
            admit(&admission, record)?;
            Ok((client, Some(heard)))
        }
        Err(ending) => Err(refuse(ending, record)),
    }
}

fn admit(admission: &Admission, record: &mut Record) -> Result<(), Ending> {
    if record.client().is_unnamed() {
        // Who may come by a path is said by its permissions.
        return Ok(());
    }
    match admission.admit(record.client().ip(), Instant::now()) {
        Ok(counted) => {
            if let Some(counted) = counted {
                record.counts(counted);
            }
            Ok(())
        }
        Err(rule) => {
            refuse(admission, rule, record);
            Err(Ending::new(Who::Ballast, Phase::Admission, cause(rule)))
        }
    }
}

/// Counts a refusal. Of many, a few have a line of their own.
fn refuse(admission: &Admission, rule: Rule, record: &mut Record) {
    record.route().turn_away();
    if !admission.refuse(rule, Instant::now()) {
        record.hush();
    }
}

fn cause(rule: Rule) -> Cause {
    match rule {
        Rule::AcceptFrom => Cause::Untrusted,
        Rule::ProxyProtocol => Cause::BadHeader,
        // Those who are over the latter two wait.
        Rule::Access | Rule::MaxConnections | Rule::AcceptRate => Cause::Denied,
        Rule::MaxPerSource => Cause::TooMany,
        Rule::RatePerSource => Cause::TooOften,
    }
}
