//! `ballast demo`: the main job with nothing else installed. Three servers inside this process, the
//! real balancer in front of them, a few clients, and a server that dies every ten seconds.
//!
//! [`Demo::play`] is the whole course of it; [`servers`], [`clients`] and [`balancer`] are the cast,
//! [`screen`] is what is seen, [`story`] what is remembered for the summary.

mod balancer;
mod clients;
mod screen;
mod servers;
mod story;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at};

use self::balancer::{Balancer, FALL};
use self::clients::Clients;
use self::screen::{Screen, Share, clock, seconds};
use self::servers::Server;
use self::story::Story;
use super::printing::{ended, say};
use crate::control::Event;
use crate::health::State;

/// The whole subcommand: 0 after Ctrl-C, 1 when the demo cannot start. A server dies at each
/// `pace`.
pub(super) fn run(listen: SocketAddr, pace: Duration) -> ExitCode {
    let outcome = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")
        .and_then(|runtime| runtime.block_on(show(listen, pace)));
    match outcome {
        Ok(shown) => ended(shown, ExitCode::SUCCESS),
        Err(error) => {
            say(&format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Tells what became of what was shown.
async fn show(listen: SocketAddr, pace: Duration) -> anyhow::Result<io::Result<()>> {
    let mut end = End::watch()?;
    let mut servers = Vec::new();
    for name in ["red", "green", "blue"] {
        servers.push(Server::start(name).context("cannot start a server on 127.0.0.1")?);
    }
    let balancer = Balancer::start(listen, &servers, pace / HEARTBEATS).await?;
    let mut demo = Demo {
        shown: vec![0; servers.len()],
        servers,
        balancer,
        screen: Screen::new(),
        story: Story::default(),
        dead: None,
        next: 0,
    };
    demo.introduce(pace);
    let outcome = demo.play(pace, &mut end).await;
    let stopped = demo.balancer.stop().await;
    let shown = demo.screen.close();
    outcome.and(stopped).map(|()| shown)
}

struct Demo {
    servers: Vec<Server>,
    balancer: Balancer,
    screen: Screen,
    story: Story,
    /// What each server had served when the last row was shown.
    shown: Vec<u64>,
    /// The server that is dead.
    dead: Option<usize>,
    /// The server that dies next.
    next: usize,
}

impl Demo {
    fn introduce(&self, pace: Duration) {
        let (listen, reach) = (self.balancer.address(), reachable(self.balancer.address()));
        let names: Vec<&str> = self.servers.iter().map(Server::name).collect();
        self.screen.say(&format!(
            "\
Ballast listens on {listen}, in front of three servers of its own:
{}. Each answers HTTP with its name and echoes the rest.

  Try it from another terminal:
    curl http://{reach}
    while sleep 0.2; do curl -s http://{reach}; done
  or, where nc is installed, `nc {} {}` and type what is not HTTP.

Every {} s a server dies and returns {} s later. Ctrl-C ends the demo.

The rows count sessions: the demo's own clients open about fifty a second.
",
            names.join(", "),
            reach.ip(),
            reach.port(),
            pace.as_secs_f64(),
            (pace / 2).as_secs_f64(),
        ));
    }

    /// Shows what happens until it is told to end, then sums it up.
    async fn play(&mut self, pace: Duration, end: &mut End) -> anyhow::Result<()> {
        let (tell, mut failures) = mpsc::channel(FAILURES);
        let clients = Clients::start(reachable(self.balancer.address()), move |error| {
            // A screen that has this many failures to show needs no more of them.
            let _ = tell.try_send(error);
        });
        let start = Instant::now();
        let mut turns = interval_at(start + pace, pace / 2);
        let mut rows = interval_at(start + pace / ROWS, pace / ROWS);
        loop {
            tokio::select! {
                // A row that is due together with a death tells of the time before it.
                biased;
                () = end.comes() => break,
                _ = rows.tick() => {
                    self.row(clients.failed());
                    if self.screen.is_gone() {
                        break;
                    }
                }
                _ = turns.tick() => self.turn().await?,
                Some(error) = failures.recv() => {
                    self.screen.alarm(&format!("a client's connection failed: {error}"));
                }
                event = self.balancer.next() => match event {
                    Some(event) => self.tell(&event),
                    None => bail!("the balancer ended on its own"),
                },
            }
        }
        let failed = clients.failed();
        drop(clients);
        self.sum_up(failed);
        Ok(())
    }

    /// Revives the server that is dead, or lets the next one die.
    async fn turn(&mut self) -> anyhow::Result<()> {
        let now = self.screen.elapsed();
        if let Some(index) = self.dead.take() {
            let server = &mut self.servers[index];
            server.revive().context("a server cannot return")?;
            self.story.returned(server.name(), now);
            self.screen
                .event(&format!("return     {} listens again", server.name()));
        } else {
            let index = self.next;
            self.next = (index + 1) % self.servers.len();
            let server = &mut self.servers[index];
            server.die().await;
            self.dead = Some(index);
            self.story.died(server.name(), now);
            self.screen.event(&format!(
                "death      {}: its port refuses, its connections are gone",
                server.name()
            ));
        }
        Ok(())
    }

    /// What the balancer has done.
    fn tell(&mut self, event: &Event) {
        let now = self.screen.elapsed();
        match event {
            // The demo has no file to read again.
            Event::Listening { .. }
            | Event::Ready(_)
            | Event::StillDown { .. }
            | Event::Ejection { .. }
            | Event::Failover(_)
            | Event::Tier { .. }
            | Event::Suspect { .. }
            | Event::Reloaded(_)
            | Event::Recap(_)
            | Event::Membership { .. }
            | Event::Rejected { .. }
            | Event::Accepted { .. } => {}
            Event::Missed {
                backend,
                cause,
                streak,
            } => self.screen.event(&format!(
                "heartbeat  {} missed {streak} of {FALL}: {cause}; new sessions try another",
                backend.name()
            )),
            Event::Transition {
                backend,
                to,
                cause,
                eligible,
                configured,
                ..
            } => {
                let name = backend.name();
                let serving = format!("{eligible} of {configured} serve");
                match (to, cause) {
                    (State::Down, cause) => {
                        let cause = cause.as_ref().map(|cause| format!(": {cause}"));
                        let cause = cause.unwrap_or_default();
                        let after = self.story.down(name, now);
                        if after.is_some() {
                            // The balancer tells of the last miss by the transition alone.
                            self.screen.event(&format!(
                                "heartbeat  {name} missed {FALL} of {FALL}{cause}"
                            ));
                        }
                        let after = after.map(|it| format!(" {} after its death", seconds(it)));
                        self.screen.alarm(&format!(
                            "failover   {name} is out{}{cause}; {serving}",
                            after.unwrap_or_default()
                        ));
                    }
                    (State::Up | State::Unknown, _) => match self.story.up(name, now) {
                        Some(after) => self.screen.event(&format!(
                            "recovery   {name} is back {} after its return; {serving}",
                            seconds(after)
                        )),
                        // How many serve is known once all have answered.
                        None => self.screen.event(&format!("heartbeat  {name} answers")),
                    },
                }
            }
        }
    }

    /// Who has served how many since the last row.
    fn row(&mut self, failed: u64) {
        let mut shares = Vec::new();
        for (server, shown) in self.servers.iter().zip(&mut self.shown) {
            let served = server.served();
            shares.push(Share {
                name: server.name(),
                sessions: served - *shown,
                alive: server.is_alive(),
            });
            *shown = served;
        }
        self.screen.row(&shares, failed);
    }

    fn sum_up(&self, failed: u64) {
        let each: Vec<String> = self
            .servers
            .iter()
            .map(|server| format!("{} {}", server.name(), server.served()))
            .collect();
        self.screen.say(&format!(
            "
Summary after {}
  sessions                   {}
  failed client connections  {failed}
  failovers                  {}",
            clock(self.screen.elapsed()).trim_start(),
            each.join(", "),
            self.story.failovers(),
        ));
        for line in self.story.summary() {
            self.screen.say(&format!("  {line}"));
        }
    }
}

/// Ctrl-C, a polite request from elsewhere, or the end of the terminal.
struct End {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl End {
    fn watch() -> anyhow::Result<Self> {
        let catch = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            hangup: catch(SignalKind::hangup())?,
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
        })
    }

    /// Cancel safe.
    async fn comes(&mut self) {
        tokio::select! {
            _ = self.hangup.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Where a client of this machine reaches a listener, wildcard or not.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Heartbeats between two deaths: at a pace of ten seconds, one each half second.
const HEARTBEATS: u32 = 20;

/// Rows between two deaths.
const ROWS: u32 = 5;

/// Failures that wait to be shown.
const FAILURES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_reached_through_loopback() {
        let reached = |listen: &str| reachable(listen.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(reached("[::]:80"), "[::1]:80");
        assert_eq!(reached("192.0.2.1:80"), "192.0.2.1:80");
    }
}
