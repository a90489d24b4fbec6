//! Micro benches: what one decision costs, and what a table costs to build, for every registered
//! strategy. `cargo bench --bench micro -- pick` runs one group.
//!
//! A pick is measured with a new cursor, source and entropy each time, over backends that hold a
//! few sessions, so that neither a branch predictor nor a tie decides the figure.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::future::poll_fn;
use std::hint::black_box;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use ballast::admission::{Access, Rate, Source, SourceRules, Sources};
use ballast::config::{ListenConfig, RelayMode, SocketConfig, compile};
use ballast::model::{Backend, BackendId, ClientAddr, DownFlag, Load, Meter, Page};
use ballast::net::relay::{Relay, Terms, Workspace};
use ballast::net::{
    Accepted, BoundListener, Dialer, Listener, Registry, Shortage, Socket, connect,
};
use ballast::reactor::{self, Source as Descriptor};
use ballast::strategy::{Candidate, Entry, Flow, Parameters, REGISTRY, Skip, Strategy};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ipnet::IpNet;

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = pick, pick_around_the_dead, build, admit, relay_turn, compile_configuration
}
criterion_main!(benches);

/// The ordinary pick: everybody is up, nothing was tried.
fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for entry in REGISTRY {
        for size in SIZES {
            let (backends, _) = backends(size);
            let strategy = build_over(entry, &candidates(&backends));
            group.bench_function(BenchmarkId::new(entry.name, size), |bencher| {
                let mut flows = Flows(0);
                bencher.iter(|| strategy.pick(&flows.next(), &backends, black_box(&Skip::none())));
            });
        }
    }
    group.finish();
}

/// The pick between a health transition and the new table: half of the backends are down.
fn pick_around_the_dead(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick, half of the backends down");
    for entry in REGISTRY {
        for size in [10, 10_000] {
            let (backends, flags) = backends(size);
            flags.iter().step_by(2).for_each(|flag| flag.set(true));
            let strategy = build_over(entry, &candidates(&backends));
            group.bench_function(BenchmarkId::new(entry.name, size), |bencher| {
                let mut flows = Flows(0);
                bencher.iter(|| strategy.pick(&flows.next(), &backends, black_box(&Skip::none())));
            });
        }
    }
    group.finish();
}

/// A table from its candidates; at 10,000 this bounds how fast a reload can be.
fn build(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build");
    for entry in REGISTRY {
        for size in SIZES {
            let (backends, _) = backends(size);
            let candidates = candidates(&backends);
            group.bench_function(BenchmarkId::new(entry.name, size), |bencher| {
                bencher.iter(|| build_over(entry, black_box(&candidates)));
            });
        }
    }
    // The dearest case of the dearest table: no two backends of one weight.
    let (backends, _) = backends(10_000);
    let mut distinct = candidates(&backends);
    for (candidate, index) in distinct.iter_mut().zip(0..) {
        candidate.weight = 1 + index * 7_919 % 65_535;
    }
    for entry in REGISTRY.iter().filter(|entry| entry.weighted) {
        let id = BenchmarkId::new(entry.name, "10000 of distinct weights");
        group.bench_function(id, |bencher| {
            bencher.iter(|| build_over(entry, black_box(&distinct)));
        });
    }
    group.finish();
}

fn build_over(entry: &Entry, candidates: &[Candidate]) -> Box<dyn Strategy> {
    let parameters = Parameters {
        configured: candidates.len(),
        ipv6_prefix: 64,
        max_load: None,
    };
    entry.build(candidates, &parameters)
}

fn candidates(backends: &[Arc<Backend>]) -> Vec<Candidate> {
    backends
        .iter()
        .map(|backend| Candidate {
            id: backend.id().clone(),
            weight: backend.weight(),
            portion: backend.portion(),
        })
        .collect()
}

/// One message on its way from one socket to another, by itself and through the relay: the
/// difference is one turn. All on one thread, the kernel's work included.
fn relay_turn(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one message, one way");
    for size in [64, 16 * 1024, 64 * 1024] {
        for relayed in [false, true] {
            let name = if relayed { "relayed" } else { "direct" };
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter_custom(|times| {
                    let busy = AtomicU64::new(0);
                    reactor::run(messages(times, size, relayed), &busy).expect("a reactor")
                });
            });
        }
    }
    group.finish();
}

async fn messages(times: u64, size: usize, relayed: bool) -> Duration {
    let server = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = server.local_addr().expect("an address");
    let mut from = if relayed {
        through_a_relay(address).await
    } else {
        TcpStream::connect(address).expect("a connection")
    };
    from.set_nodelay(true).expect("TCP_NODELAY");
    let (to, _) = server.accept().expect("a client");
    to.set_nonblocking(true).expect("an option");
    let to = Descriptor::both_ways(OwnedFd::from(to)).expect("watched");
    let mut buffer = vec![0; size];
    let started = Instant::now();
    for _ in 0..times {
        // It fits the socket's buffer, so it does not block.
        from.write_all(&buffer).expect("sent");
        let mut received = 0;
        while received < size {
            poll_fn(|cx| to.poll_readable(cx)).await;
            match rustix::io::read(&to, &mut buffer[received..]) {
                Ok(read) => received += read,
                Err(_) => to.drained(),
            }
        }
    }
    started.elapsed()
}

/// Whether a client may come in: by a hundred thousand networks, and by a table of sources that ten
/// million addresses run through.
fn admit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("admit");
    let mut random = fastrand::Rng::with_seed(7);
    for size in [100, 100_000] {
        let ipv4 = (0..size).map(|_| {
            let (ip, length) = (Ipv4Addr::from_bits(random.u32(..)), random.u8(12..=32));
            IpNet::new(ip.into(), length).expect("a length").trunc()
        });
        let access = Access::new(None::<[IpNet; 0]>, ipv4.collect::<Vec<_>>());
        group.bench_function(BenchmarkId::new("networks", size), |bencher| {
            let mut flows = Flows(0);
            bencher.iter(|| access.admits(black_box(flows.next().source.ip())));
        });
        // Global unicast addresses: 2000::/3.
        let global = |bits: u128| Ipv6Addr::from_bits(bits >> 3 | 1 << 125);
        let ipv6 = (0..size).map(|_| {
            let (ip, length) = (global(random.u128(..)), random.u8(20..=128));
            IpNet::new(ip.into(), length).expect("a length").trunc()
        });
        let access = Access::new(None::<[IpNet; 0]>, ipv6.collect::<Vec<_>>());
        group.bench_function(BenchmarkId::new("IPv6 networks", size), |bencher| {
            let mut flows = Flows(0);
            bencher.iter(|| {
                let spread = u128::from(flows.next().entropy);
                access.admits(black_box(global(spread << 64 | spread).into()))
            });
        });
    }
    let rules = SourceRules {
        most: NonZeroU32::new(100),
        rate: Some(Rate::a_second(10)),
        ..SourceRules::default()
    };
    let mut sources = Sources::new(65_536);
    group.bench_function("sources, ten million addresses", |bencher| {
        let mut number = 0_u64;
        bencher.iter(|| {
            number = (number + 1) % 10_000_000;
            let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let source = Source::of(Ipv4Addr::from_bits(number as u32).into(), 64);
            let entered = sources.enter(source, hash, &rules, number * 1000);
            if entered.counted {
                sources.leave(source, hash);
            }
        });
    });
    group.finish();
}

/// The client's end of a session whose backend is at `address`.
async fn through_a_relay(address: SocketAddr) -> TcpStream {
    let listen = ListenConfig {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into(),
        dual_stack: false,
        mptcp: false,
    };
    let bound = BoundListener::bind(&listen, &SocketConfig::default(), 1, &[]).expect("bound");
    bound.listen(16).expect("listening");
    let listener = Listener::register(bound.of_worker(0)).expect("registered");
    let client = TcpStream::connect(bound.address().inet().expect("TCP")).expect("a connection");
    listener.ready().await;
    let Accepted::Client(arrival, _) = listener.accept(false) else {
        panic!("no client");
    };
    let accepted = Socket::accepted(arrival).expect("registered");
    reactor::spawn(async move {
        let ticket = Registry::new().enter();
        let deadline = Instant::now() + Duration::from_secs(10);
        let dialer = Dialer {
            outgoing: None,
            client: ClientAddr::new(address),
            page: &Page::default(),
            shortage: Shortage::of(0),
        };
        let (backend, early) = connect(address.into(), &dialer, &ticket, deadline, None, b"", None)
            .await
            .expect("a backend");
        let terms = Terms {
            idle: Duration::from_secs(3600),
            half_closed: Duration::from_secs(300),
            mode: RelayMode::Auto,
            kept_alive: false,
        };
        let workspace: RefCell<Workspace> = Workspace::new(0, Shortage::of(0));
        Relay::new(accepted, backend, early, terms, None)
            .run(&ticket, &workspace, None, &Meter::new(Instant::now()))
            .await;
    });
    client
}

/// A whole file: parsed, checked, compiled.
fn compile_configuration(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile a configuration");
    for size in SIZES {
        let mut file = String::from("[[service]]\nname = \"web\"\nlisten = \"127.0.0.1:80\"\n");
        for index in 0..size {
            let (high, low) = (index / 256, index % 256);
            writeln!(
                file,
                "[[service.backend]]\nname = \"app-{index}\"\naddress = \"10.0.{high}.{low}:8080\""
            )
            .expect("a string takes it");
        }
        group.bench_function(BenchmarkId::new("backends", size), |bencher| {
            bencher.iter(|| compile(black_box(&file), "bench"));
        });
    }
    group.finish();
}

/// Backends of weights 1 to 10 that hold 0 to 7 sessions, with their down flags.
fn backends(count: usize) -> (Vec<Arc<Backend>>, Vec<Arc<DownFlag>>) {
    let mut random = fastrand::Rng::with_seed(7);
    (0..count)
        .map(|index| {
            let load = Arc::new(Load::new(2));
            (0..random.u32(0..8)).for_each(|_| assert!(load.enter()));
            let down = Arc::new(DownFlag::default());
            let backend = Backend::new(
                BackendId::new("web", format!("app-{index}")),
                SocketAddr::from((Ipv4Addr::LOCALHOST, 80)),
                random.u32(1..=10),
                load,
                Arc::clone(&down),
            );
            (Arc::new(backend), down)
        })
        .unzip()
}

/// One flow after the other: a counter for the cursor, Weyl sequences for the rest.
struct Flows(u64);

impl Flows {
    fn next(&mut self) -> Flow {
        self.0 += 1;
        let spread = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Flow {
            source: ClientAddr::new(SocketAddr::from((
                Ipv4Addr::from_bits((spread >> 32) as u32),
                40_000,
            ))),
            sequence: self.0,
            entropy: spread,
        }
    }
}
