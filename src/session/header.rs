//! PROXY headers, as a session asks for them: the one that its client has to begin with, and the one
//! that its backend is sent.

use std::time::Instant;

use super::Context;
use crate::config::{AcceptHeader, SendHeader};
use crate::model::{Address, Cause, ClientAddr, Ending, Phase, Who};
use crate::net::{Socket, Ticket, Unheard, hear};
use crate::proxy_protocol::{Header, Origin, UniqueId};
use crate::telemetry::Record;

/// Who may send a header at all; looked at before anything is read.
pub(super) fn trust(rules: &AcceptHeader, client: ClientAddr) -> Result<(), Ending> {
    let is_trusted = match client.is_unnamed() {
        true => rules.from_paths,
        false => rules.from.contain(client.ip()),
    };
    match is_trusted {
        true => Ok(()),
        false => Err(ending(Who::Ballast, Cause::Untrusted)),
    }
}

/// Waits for the header, and has the record go on with the client that it names.
pub(super) async fn receive(
    rules: &AcceptHeader,
    client: &mut Socket,
    context: &Context,
    ticket: &Ticket,
    record: &mut Record,
) -> Result<Header, Ending> {
    let deadline = Instant::now() + rules.timeout;
    match hear(client, ticket, &context.workspace, deadline).await {
        Ok(header) => {
            if let Origin::Client { source, .. } = header.origin {
                record.is_for(ClientAddr::new(source));
            }
            Ok(header)
        }
        Err(Unheard::Malformed(why)) => {
            tracing::debug!(client = %record.client(), %why, "no PROXY header");
            Err(ending(Who::Ballast, Cause::BadHeader))
        }
        Err(Unheard::Ended(who, cause)) => Err(ending(who, cause)),
    }
}

/// What the backend is told of the client: what a proxy has said of it, or where it came from and to.
pub(super) fn introduction(
    rules: SendHeader,
    client: &Socket,
    heard: Option<Header>,
    chance: u128,
    record: &mut Record,
) -> Vec<u8> {
    let own = || record.route().listener();
    let (destination, given) = match heard {
        Some(Header {
            origin: Origin::Client { destination, .. },
            unique_id,
        }) => (Some(destination), unique_id),
        Some(_) | None => (client.local_address().ok(), None),
    };
    // Who connects and is gone at once has no address any more; nobody is served with the header then.
    let destination = destination.map_or_else(own, Address::Inet);
    let unique_id = rules.unique_id.then(|| {
        let id = given.unwrap_or_else(|| UniqueId::of_chance(chance));
        record.is_called(id.clone());
        id
    });
    let header = match (record.client(), destination) {
        (client, Address::Inet(destination)) if !client.is_unnamed() => {
            Header::client(client.socket_addr(), destination)
        }
        (_, Address::Unix(path)) => Header::at_path(path),
        (_, Address::Inet(_)) => Header::LOCAL,
    };
    header.named(unique_id).encode(rules.version)
}

fn ending(who: Who, cause: Cause) -> Ending {
    Ending::new(who, Phase::ProxyHeader, cause)
}
