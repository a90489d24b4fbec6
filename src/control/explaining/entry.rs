//! Whether a client would be let in: the rules in the order in which a connection meets them, asked without
//! counting anybody.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use super::{Case, seen_as};
use crate::admission::{Cap, Rule};
use crate::config::{Limited, LimitsConfig};
use crate::control::inspect::time;
use crate::strategy::Basis;

/// What the rules say.
#[derive(Debug)]
pub(super) struct Entry {
    /// It is no proxy, and only those may connect: all else is about a client behind one.
    pub(super) is_stranger: bool,
    /// The first rule that keeps it out.
    pub(super) refusal: Option<Refusal>,
    /// What else there is to know.
    pub(super) notes: Vec<String>,
}

/// A rule that keeps a client out, and why.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) rule: Rule,
    pub(super) why: String,
}

impl Case {
    /// Whether `client` would come in at `now`.
    pub(super) fn entry(&self, client: IpAddr, now: Instant) -> Entry {
        let mut notes = Vec::new();
        let accept = self.config.proxy.accept.as_ref();
        let is_proxy = accept.is_some_and(|it| it.from.contain(client));
        let mut refusal = self.refusal(client, now, &mut notes);
        if is_proxy {
            notes.insert(
                0,
                "it is one of the proxies of accept_from: what counts is the client that its PROXY \
                 header names"
                    .to_owned(),
            );
            // Its own address counts only where it speaks for itself.
            if let Some(Refusal { rule, why }) = refusal.take() {
                notes.push(format!(
                    "a client of this address is reset by {rule}: {why}"
                ));
            }
        }
        if let (Some(full), Some(_)) = (&self.full, &refusal) {
            notes.push(format!("before that it waits to be accepted: {full}"));
        }
        let limits = &self.config.admission.limits;
        if let Some(Limited { most, dry: false }) = limits.accept_rate {
            notes.push(format!("it may wait for its turn: accept_rate is {most}"));
        }
        notes.extend(bandwidth(limits));
        match self.view().queue.waiting {
            0 => {}
            1 => notes.push("1 client waits for a place before it".to_owned()),
            waiting => notes.push(format!("{waiting} clients wait for a place before it")),
        }
        Entry {
            is_stranger: accept.is_some() && !is_proxy,
            refusal,
            notes,
        }
    }

    /// The first rule that keeps the client out, and notes of those that only count it.
    fn refusal(&self, client: IpAddr, now: Instant, notes: &mut Vec<String>) -> Option<Refusal> {
        let mut refusal = None;
        let mut put = |rule: Rule, why: String, dry: bool| match dry {
            true => notes.push(format!("{rule} would refuse it, and is a dry run: {why}")),
            false => {
                refusal.get_or_insert(Refusal { rule, why });
            }
        };
        if let Some(access) = &self.config.admission.access
            && !access.rules.admits(client)
        {
            let denier = access.denier(client);
            let why = format!("[service.access] does not let it in: {denier}");
            put(Rule::Access, why, access.dry_run);
        }
        let limits = &self.config.admission.limits;
        let admission = self.snapshot.admission.as_ref();
        let foreseen = admission.and_then(|it| it.foresee(client, now));
        // Without a table of sources nothing is known, and nothing limited, by source.
        let foreseen = foreseen.unwrap_or_default();
        let rules = &limits.source;
        let (who, has) = self.source(client);
        if foreseen.too_many
            && let Some(most) = rules.most
        {
            let why = format!(
                "{who} holds {} of {most} (max_per_source)",
                foreseen.sessions
            );
            put(Rule::MaxPerSource, why, rules.most_is_dry);
        }
        if let (Some(early), Some(rate)) = (foreseen.too_soon, rules.rate) {
            let early = Duration::from_nanos(early);
            let until = time(SystemTime::now() + early);
            let why = format!(
                "{has} rate is used up for {:.1} s, until {until} (rate_per_source {rate})",
                early.as_secs_f64()
            );
            put(Rule::RatePerSource, why, rules.rate_is_dry);
        }
        if let (Some(most), 1.., false) = (rules.most, foreseen.sessions, foreseen.too_many) {
            let sessions = foreseen.sessions;
            notes.push(format!("{who} holds {sessions} of {most} (max_per_source)"));
        }
        refusal
    }

    /// What limits by source call the client, as who does and as whose.
    fn source(&self, client: IpAddr) -> (String, String) {
        let prefix = self.config.admission.limits.source_ipv6_prefix;
        match client {
            IpAddr::V6(_) if prefix < 128 => {
                let network = seen_as(client, Basis::Source, prefix);
                (
                    format!("its network {network}"),
                    format!("the network {network}: its"),
                )
            }
            IpAddr::V4(_) | IpAddr::V6(_) => ("it".to_owned(), "its".to_owned()),
        }
    }
}

/// How fast its bytes may flow, if there is a limit.
fn bandwidth(limits: &LimitsConfig) -> Option<String> {
    let caps = Cap::ALL.into_iter().zip(&limits.caps);
    let caps: Vec<_> = caps
        .filter_map(|(cap, limit)| {
            let Limited { most, dry } = (*limit)?;
            let besides = if dry { " (dry run)" } else { "" };
            Some(format!("{cap} {most}{besides}"))
        })
        .collect();
    let caps = (!caps.is_empty()).then(|| caps.join(", "))?;
    Some(format!(
        "[service.limits] limits the bandwidth of sessions: {caps}"
    ))
}
