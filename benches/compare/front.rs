//! Where clients connect in one run: a proxy started for it, or, for `direct`, the backends themselves.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Resource, getrlimit};

use crate::load;
use crate::peers::{DIRECT, Peer, Plan, ServicePlan};
use crate::proc;
use crate::process::Group;
use crate::wire;

/// The longest that a proxy may take from its start to an answer, 10,000 backends included.
const START: Duration = Duration::from_secs(30);

/// More than any test needs; proxies that allocate per descriptor are not told of millions.
const DESCRIPTORS: u64 = 65_536;

/// Starts that another process's port may spoil.
const ATTEMPTS: usize = 3;

/// Who stands between client and backends.
#[derive(Debug)]
pub(crate) enum Contender {
    Direct,
    Proxy(Peer),
}

impl Contender {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Contender::Direct => DIRECT,
            Contender::Proxy(peer) => peer.name,
        }
    }

    pub(crate) fn peer(&self) -> Option<&Peer> {
        match self {
            Contender::Direct => None,
            Contender::Proxy(peer) => Some(peer),
        }
    }
}

/// What a proxy is to stand in front of.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// The backends of each service.
    pub(crate) services: Vec<Vec<SocketAddr>>,
    pub(crate) workers: usize,
    pub(crate) check_interval: Duration,
    /// With an admin port, where the contender has one.
    pub(crate) admin: bool,
}

impl Setting {
    /// One service.
    pub(crate) fn new(backends: &[SocketAddr], workers: usize) -> Setting {
        const CHECK_INTERVAL: Duration = Duration::from_secs(2);
        Setting {
            services: vec![backends.to_vec()],
            workers,
            check_interval: CHECK_INTERVAL,
            admin: false,
        }
    }
}

/// A contender that answers.
#[derive(Debug)]
pub(crate) struct Front<'a> {
    /// Where the clients of each service connect.
    services: Vec<Vec<SocketAddr>>,
    proxy: Option<Proxy<'a>>,
}

#[derive(Debug)]
struct Proxy<'a> {
    group: Group,
    peer: &'a Peer,
    plan: Plan,
    config: PathBuf,
}

impl<'a> Front<'a> {
    /// Returns when every service that was tried passes an echo on.
    pub(crate) fn start(
        contender: &'a Contender,
        setting: &Setting,
        directory: &Path,
    ) -> Result<Front<'a>> {
        let Some(peer) = contender.peer() else {
            return Ok(Front {
                services: setting.services.clone(),
                proxy: None,
            });
        };
        let mut outcome = Err(anyhow!("no attempt"));
        for _ in 0..ATTEMPTS {
            outcome = Front::attempt(peer, setting, directory);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    fn attempt(peer: &'a Peer, setting: &Setting, directory: &Path) -> Result<Front<'a>> {
        let mut services = Vec::with_capacity(setting.services.len());
        for backends in &setting.services {
            services.push(ServicePlan {
                listen: free_address()?,
                backends: backends.clone(),
            });
        }
        let plan = Plan {
            services,
            workers: setting.workers,
            descriptors: getrlimit(Resource::Nofile)
                .current
                .unwrap_or(DESCRIPTORS)
                .min(DESCRIPTORS),
            directory: directory.to_owned(),
            check_interval: setting.check_interval,
            admin: setting.admin.then(free_address).transpose()?,
        };
        let config = directory.join(peer.file);
        fs::write(&config, (peer.render)(&plan))?;
        let arguments: Vec<OsString> = (peer.arguments)(directory, &config, setting.workers);
        let group = Group::program(&peer.program, &arguments)?;
        let services = plan
            .services
            .iter()
            .map(|service| vec![service.listen])
            .collect();
        let mut front = Front {
            services,
            proxy: Some(Proxy {
                group,
                peer,
                plan,
                config,
            }),
        };
        front.wait_until_it_answers()?;
        Ok(front)
    }

    /// The targets of the only service.
    pub(crate) fn targets(&self) -> Vec<SocketAddr> {
        self.services.iter().flatten().copied().collect()
    }

    /// The targets of one service.
    pub(crate) fn targets_of(&self, service: usize) -> Vec<SocketAddr> {
        self.services[service].clone()
    }

    /// Where its operators ask.
    pub(crate) fn admin(&self) -> Option<SocketAddr> {
        self.proxy.as_ref().and_then(|proxy| proxy.plan.admin)
    }

    /// The process whose family is measured.
    pub(crate) fn process(&self) -> Option<u32> {
        self.proxy.as_ref().map(|proxy| proxy.group.id())
    }

    pub(crate) fn family(&self) -> Vec<u32> {
        self.process().map(proc::family).unwrap_or_default()
    }

    pub(crate) fn group(&self) -> Option<&Group> {
        self.proxy.as_ref().map(|proxy| &proxy.group)
    }

    /// Whether [`reload`](Front::reload) does anything.
    pub(crate) fn reloads(&self) -> bool {
        self.proxy
            .as_ref()
            .is_some_and(|proxy| proxy.peer.reload.is_some())
    }

    /// Writes the configuration anew without the last `removed` backends of each service, has it read, and
    /// says when the signal went out.
    pub(crate) fn reload(&self, removed: usize) -> Result<Instant> {
        let Some((proxy, signal)) = self
            .proxy
            .as_ref()
            .and_then(|proxy| Some((proxy, proxy.peer.reload?)))
        else {
            bail!("nothing to reload");
        };
        let mut plan = proxy.plan.clone();
        for service in &mut plan.services {
            let kept = service.backends.len().saturating_sub(removed).max(1);
            service.backends.truncate(kept);
        }
        // Renamed into place: a reader never sees half a file.
        let fresh = proxy.config.with_extension("new");
        fs::write(&fresh, (proxy.peer.render)(&plan))?;
        fs::rename(&fresh, &proxy.config)?;
        let signalled = Instant::now();
        proxy.group.signal(signal)?;
        Ok(signalled)
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        /// Between two tries; all our proxies start within a few of these.
        const STEP: Duration = Duration::from_millis(20);
        let Some(proxy) = &mut self.proxy else {
            return Ok(());
        };
        let request = wire::request(64);
        let deadline = Instant::now() + START;
        // Of many services the first and the last stand for all.
        let tried: Vec<&ServicePlan> = proxy
            .plan
            .services
            .iter()
            .take(2)
            .chain(proxy.plan.services.last())
            .collect();
        for service in tried {
            // Twice around a short list of backends, so that each has been connected to; a longer one is sampled.
            let mut left = (2 * service.backends.len()).min(16);
            while left > 0 {
                let outcome = TcpStream::connect_timeout(&service.listen, STEP)
                    .map_err(anyhow::Error::from)
                    .and_then(|stream| load::exchange(&stream, &request));
                match outcome {
                    Ok(()) => left -= 1,
                    Err(error) => {
                        if let Some(status) = proxy.group.exited() {
                            // Its last words may still be in the pipe.
                            thread::sleep(STEP);
                            bail!(
                                "{} ended at start ({status}):\n{}",
                                proxy.peer.name,
                                proxy.group.output.tail()
                            );
                        }
                        if Instant::now() >= deadline {
                            let tail = proxy.group.output.tail();
                            return Err(error)
                                .context(format!("{} does not answer:\n{tail}", proxy.peer.name));
                        }
                        thread::sleep(STEP);
                    }
                }
            }
        }
        Ok(())
    }
}

/// A port that nobody listens on, from below the range that outgoing connections draw from: thousands of
/// them come and go while a proxy starts, and one could take the port in between.
fn free_address() -> Result<SocketAddr> {
    const PORTS: std::ops::Range<u16> = 12_000..32_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let spread = u16::try_from(std::process::id() % 16_384).unwrap_or(0);
    for _ in PORTS {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = PORTS.start + (spread.wrapping_add(step)) % (PORTS.end - PORTS.start);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port in {PORTS:?}")
}
