//! How `ballast status` looks: what is wrong, then a table of everything. Knows nothing of where it
//! comes from.

use std::fmt::Write as _;

use crate::api::{Backend, Event, Left, Service, Standing, State, View};
use crate::cli::condition::{Condition, Gravity, is_full, since_when};
use crate::cli::figures::{ago, count, grouped, of, rate, scaled, time, width, wrapped};
use crate::cli::findings::{
    CONFIGURATION, Finding, findings, not_let_in, share, slowed_down, turned_away,
};
use crate::cli::rates::Rates;
use crate::cli::table::{BOLD, Cell, Column, DIM, GREEN, PLAIN, RED, Table, YELLOW};

/// Everything that is printed, and how.
#[derive(Debug)]
pub(super) struct Page<'a> {
    pub(super) view: &'a View,
    /// Only this one, in detail.
    pub(super) service: Option<&'a str>,
    /// Counts take their place.
    pub(super) rates: Option<&'a Rates>,
    /// The latest, oldest first.
    pub(super) events: &'a [Event],
    pub(super) columns: usize,
    pub(super) colours: bool,
}

impl Page<'_> {
    /// The page.
    pub(super) fn text(&self) -> String {
        let mut out = self.head();
        let of_interest =
            |finding: &Finding| self.service.is_none_or(|service| finding.concerns(service));
        let findings: Vec<_> = findings(self.view)
            .into_iter()
            .filter(of_interest)
            .collect();
        out += &self.told(&findings);
        out.push('\n');
        out += &self.table().text(self.columns, self.colours);
        for service in self.services().filter(|_| self.service.is_some()) {
            out.push('\n');
            out += &self.details(service);
        }
        let events: Vec<_> = self.events.iter().filter(|it| self.is_wanted(it)).collect();
        if !events.is_empty() {
            out += &format!("\n{}\n", self.painted(BOLD, "LATELY"));
        }
        for event in events.iter().rev() {
            let past = ago(&event.at, &self.view.at).map_or_else(String::new, time);
            // What is wrong with a file is told above, one problem a line.
            let is_told = event.kind == "rejected" && self.is_rejected(event.service.as_deref());
            let text = match event.text.split_once(": ") {
                Some((what, _)) if is_told => what,
                Some(_) | None => &event.text,
            };
            let before = format!("  {past:>7} ago  ");
            let whole = match &*event.kind {
                "rejected" => self.columns.min(LINE),
                _ => self.line(),
            };
            let room = whole.saturating_sub(width(&before)).max(NARROW);
            let lines = wrapped(text, room);
            for (index, line) in lines.iter().enumerate() {
                let before = match index {
                    0 => before.clone(),
                    _ => " ".repeat(width(&before)),
                };
                out += &format!("{before}{line}\n");
            }
        }
        out
    }

    /// How long a sentence may be; whoever searches a pipe finds it whole.
    fn line(&self) -> usize {
        match self.columns {
            usize::MAX => usize::MAX,
            columns => columns.min(LINE),
        }
    }

    fn services(&self) -> impl Iterator<Item = &Service> {
        let all = self.view.services.iter();
        all.filter(|it| self.service.is_none_or(|service| it.name == service))
    }

    /// Whether the configuration, or the file of backends of `service`, is still rejected.
    fn is_rejected(&self, service: Option<&str>) -> bool {
        let Some(service) = service else {
            return self.view.process.configuration.rejected.is_some();
        };
        let services = &mut self.view.services.iter();
        let service = services.find(|it| it.name == service);
        let file = service.and_then(|it| it.backends_file.as_ref());
        file.is_some_and(|it| it.rejected.is_some())
    }

    fn is_wanted(&self, event: &Event) -> bool {
        self.service.is_none() || event.service.as_deref() == self.service
    }

    fn head(&self) -> String {
        let process = &self.view.process;
        let configuration = &process.configuration;
        let mut parts = vec![
            format!("ballast {}", process.version),
            format!(
                "up {}",
                time(
                    std::time::Duration::try_from_secs_f64(process.uptime_seconds)
                        .unwrap_or_default()
                )
            ),
            format!(
                "{} of {} sessions",
                grouped(process.sessions),
                grouped(process.max_connections)
            ),
        ];
        if let Some(past) = ago(&configuration.applied, &self.view.at) {
            parts.push(format!(
                "configuration {} since {}",
                configuration.generation,
                time(past)
            ));
        }
        format!("{}\n", parts.join(" · "))
    }

    fn told(&self, findings: &[Finding]) -> String {
        let mut out = String::new();
        let wrong = |it: &&Finding| it.gravity == Gravity::Wrong;
        if !findings.iter().any(|it| wrong(&it)) {
            let services = self.services().count() as u64;
            out += &format!(
                "{}: {}, {}\n",
                self.painted(GREEN, "All is well"),
                of(services, "service"),
                share(self.services())
            );
        }
        for (gravity, heading, colour) in [
            (Gravity::Wrong, "WRONG", RED),
            (Gravity::Noted, "NOTED", YELLOW),
        ] {
            let all: Vec<_> = findings.iter().filter(|it| it.gravity == gravity).collect();
            if all.is_empty() {
                continue;
            }
            let mut table = Table::new(&[Column::Words, Column::Words]);
            let shown = || all.iter().take(MOST_FINDINGS);
            let widest = shown().map(|it| width(&it.subject)).max().unwrap_or(0);
            let room = self.line().saturating_sub(widest + 4).max(NARROW);
            for finding in shown() {
                let lines = finding.lines.iter().enumerate();
                let lines = lines.flat_map(|(index, line)| {
                    // What is wrong in a file is as long as it takes, and read here.
                    let is_problem = finding.subject == CONFIGURATION && index > 0;
                    let room = match is_problem {
                        true => room.min(LINE.saturating_sub(widest + 4)),
                        false => room,
                    };
                    wrapped(line, room)
                });
                for (index, line) in lines.enumerate() {
                    let subject = if index == 0 { &*finding.subject } else { "" };
                    table.row([format!("  {subject}").into(), line.into()]);
                }
            }
            let _ = write!(out, "\n{}\n", self.painted(colour, heading));
            // What is wrong is told whole, however long its lines are.
            out += &table.text(usize::MAX, false);
            let more = all.len().saturating_sub(MOST_FINDINGS);
            if more > 0 {
                let _ = writeln!(out, "  … and {more} more, in the table below");
            }
        }
        out
    }

    fn table(&self) -> Table {
        use Column::{Numbers, Words};
        let mut table = Table::new(&[Words, Words, Words, Numbers, Numbers, Numbers, Numbers]);
        let figures = match self.rates {
            Some(_) => ["NEW/s", "IN B/s", "OUT B/s"],
            None => ["SERVED", "IN B", "OUT B"],
        };
        let heading = ["SERVICE", "STATE", "SINCE", "SESSIONS"];
        let heading = heading.into_iter().chain(figures);
        table.row(heading.map(|text| Cell::from(text).coloured(BOLD)));
        for service in self.services() {
            let colour = match service.standing {
                Standing::Ok => GREEN,
                Standing::Degraded => YELLOW,
                Standing::Down => RED,
            };
            let mut serving = service.backends.iter().filter(|it| it.serving).peekable();
            let all_full = serving.peek().is_some() && serving.all(is_full);
            let (does, colour) = match all_full {
                true => ("full", YELLOW),
                false => ("serve", colour),
            };
            let state = format!("{}/{} {does}", service.serving(), service.configured);
            let cells = [
                Cell::from(&*service.name).coloured(BOLD),
                Cell::from(state).coloured(colour),
                "".into(),
                count(service.traffic.sessions).into(),
            ];
            let figures = self.figures(&service.name, None, &service.traffic);
            table.row(cells.into_iter().chain(figures));
            let mut left_out = 0;
            let is_long = self.service.is_none() && service.backends.len() > MOST_BACKENDS;
            for backend in &service.backends {
                let condition = Condition::of(backend);
                if is_long && condition.gravity() == Gravity::Well {
                    left_out += 1;
                    continue;
                }
                let cells = self.backend(backend, condition);
                let figures = self.figures(&service.name, Some(&backend.name), &backend.traffic);
                table.row(cells.into_iter().chain(figures));
            }
            if left_out > 0 {
                let text = format!("  {left_out} more that are well");
                table.row([Cell::from(text).coloured(DIM)]);
            }
            if service.left != Left::default() {
                service.left.named.iter().take(MOST_LEFT).for_each(|it| {
                    let sessions = count(it.sessions).into();
                    let name = format!("  {}", it.name);
                    table.row([
                        name.into(),
                        Cell::from("left").coloured(DIM),
                        "".into(),
                        sessions,
                    ]);
                });
                if let Some(rest) = beyond_named(&service.left) {
                    table.row(left("  (left)", &rest));
                }
            }
        }
        let process = &self.view.process;
        if process.left != Left::default() && self.service.is_none() {
            table.row(left("(left)", &process.left));
        }
        table
    }

    fn backend(&self, backend: &Backend, condition: Condition) -> [Cell; 4] {
        let colour = match condition.gravity() {
            Gravity::Wrong => RED,
            Gravity::Noted => YELLOW,
            Gravity::Well if condition == Condition::Up => GREEN,
            Gravity::Well => DIM,
        };
        let is_meant = [Condition::Draining, Condition::Disabled].contains(&condition);
        let word = match is_meant && backend.state == State::Down {
            true => format!("{}, down", condition.word()),
            false => condition.word().to_owned(),
        };
        let since = since_when(backend);
        let since = since.and_then(|since| ago(since, &self.view.at));
        [
            format!("  {}", backend.name).into(),
            Cell::from(word).coloured(colour),
            since.map_or_else(String::new, time).into(),
            match backend.max_connections {
                Some(most) => format!("{}/{}", count(backend.traffic.sessions), count(most.into())),
                None => count(backend.traffic.sessions),
            }
            .into(),
        ]
    }

    fn figures(
        &self,
        service: &str,
        backend: Option<&str>,
        traffic: &crate::api::Traffic,
    ) -> [Cell; 3] {
        let Some(rates) = self.rates else {
            return [
                count(traffic.sessions_total).into(),
                scaled(traffic.to_backend_bytes_total as f64).into(),
                scaled(traffic.to_client_bytes_total as f64).into(),
            ];
        };
        let Some(now) = rates.of(service, backend) else {
            return ["-".into(), "-".into(), "-".into()];
        };
        [now.sessions, now.to_backend, now.to_client].map(|it| rate(it).into())
    }

    /// One service, and what there is no room for elsewhere.
    fn details(&self, service: &Service) -> String {
        use Column::{Numbers, Words};
        let listeners: Vec<&str> = service.listeners.iter().map(|it| &*it.address).collect();
        let mut out = format!(
            "{} listens on {}, {}\n",
            service.name,
            match listeners.is_empty() {
                true => "nothing".to_owned(),
                false => listeners.join(", "),
            },
            service.strategy
        );
        if service.unserved.total > 0 {
            out += &format!("{}\n", turned_away(service, &self.view.at));
        }
        for told in service
            .refusals
            .iter()
            .filter_map(|it| not_let_in(it, &self.view.at))
        {
            out += &format!("{told}\n");
        }
        if let Some(told) = slowed_down(service) {
            out += &format!("{told}\n");
        }
        let mut table = Table::new(&[Words, Words, Numbers, Numbers, Words, Numbers, Numbers]);
        let heading = [
            "BACKEND",
            "ADDRESS",
            "WEIGHT",
            "TIER",
            "CHECK",
            "LATENCY",
            "AVAILABLE",
        ];
        table.row(heading.map(|text| Cell::from(text).coloured(BOLD)));
        for backend in &service.backends {
            let check = backend.check.as_ref();
            let latency = check.and_then(|it| it.latency_seconds);
            table.row([
                format!("  {}", backend.name).into(),
                backend
                    .address
                    .clone()
                    .unwrap_or_else(|| "none".into())
                    .into(),
                backend.told_weight().into(),
                backend.priority.to_string().into(),
                check.map(|it| it.kind.clone()).unwrap_or_default().into(),
                latency.map(milliseconds).unwrap_or_default().into(),
                availability(backend).into(),
            ]);
        }
        out += &table.text(self.columns, self.colours);
        out
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        match self.colours {
            true => format!("{colour}{text}{PLAIN}"),
            false => text.to_owned(),
        }
    }
}

/// Those who have left and have no row of their own.
fn beyond_named(all: &Left) -> Option<Left> {
    let named = all.named.iter().take(MOST_LEFT);
    let rest = Left {
        backends: all.backends.saturating_sub(named.len() as u32),
        sessions: all
            .sessions
            .saturating_sub(named.map(|it| it.sessions).sum()),
        named: Vec::new(),
    };
    (rest.backends > 0).then_some(rest)
}

/// What runs on at those who have left.
fn left(who: &str, left: &Left) -> [Cell; 4] {
    let many = of(left.backends.into(), "backend");
    let many = Cell::from(many).coloured(DIM);
    [who.into(), many, "".into(), count(left.sessions).into()]
}

/// `0.42 ms`
pub(in crate::cli) fn milliseconds(seconds: f64) -> String {
    let milliseconds = seconds * 1e3;
    match milliseconds {
        it if it < 10.0 => format!("{it:.2} ms"),
        it => format!("{it:.0} ms"),
    }
}

/// `99.97%`, never rounded up to all.
pub(in crate::cli) fn availability(backend: &Backend) -> String {
    match backend.record.availability {
        None => "-".into(),
        Some(share) if share >= 1.0 => "100%".into(),
        Some(share) => format!("{:.3}%", (share * 1e5).floor() / 1e3),
    }
}

/// Columns of a sentence that is read with ease.
const LINE: usize = 100;
/// A sentence is never broken into shorter lines.
const NARROW: usize = 30;
/// Findings that are told one by one; a rack that dies is in the table, too.
const MOST_FINDINGS: usize = 12;
/// Backends of a service that are all listed beside others.
const MOST_BACKENDS: usize = 20;
/// Of those that have left, as many have a row of their own.
const MOST_LEFT: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Configuration, Departed, Process, Rejection, Traffic};

    fn backend(name: &str, state: State) -> Backend {
        Backend {
            name: name.into(),
            address: Some("10.0.0.1:80".into()),
            state,
            since: Some("2026-11-21T12:00:00.000Z".into()),
            serving: state == State::Up,
            why: (state == State::Down).then(|| "refused".into()),
            weight: 1,
            effective_weight_thousandths: 1000,
            enabled: true,
            traffic: Traffic {
                sessions: 7,
                sessions_total: 12_345,
                to_client_bytes_total: 5_000_000,
                ..Traffic::default()
            },
            ..Backend::default()
        }
    }

    fn view(backends: Vec<Backend>) -> View {
        View {
            at: "2026-11-21T12:02:10.000Z".into(),
            process: Process {
                version: "0.1.0".into(),
                uptime_seconds: 3700.0,
                sessions: 14,
                max_connections: 9000,
                configuration: Configuration {
                    applied: "2026-11-21T12:01:10.000Z".into(),
                    generation: 2,
                    ..Configuration::default()
                },
                ..Process::default()
            },
            services: vec![Service {
                name: "web".into(),
                standing: match backends.iter().all(|it| it.serving) {
                    true => Standing::Ok,
                    false => Standing::Degraded,
                },
                strategy: "round-robin".into(),
                eligible: backends.iter().filter(|it| it.serving).count() as u32,
                configured: backends.len() as u32,
                backends,
                ..Service::default()
            }],
        }
    }

    fn page(view: &View, service: Option<&str>) -> String {
        let page = Page {
            view,
            service,
            rates: None,
            events: &[],
            columns: 80,
            colours: false,
        };
        page.text()
    }

    #[test]
    fn what_is_wrong_stands_above_the_table() {
        let view = view(vec![
            backend("app-1", State::Up),
            backend("app-2", State::Down),
        ]);
        assert_eq!(
            page(&view, None),
            "\
ballast 0.1.0 · up 1h 1m · 14 of 9,000 sessions · configuration 2 since 1m

WRONG
  web        1 of 2 backends serve
  web/app-2  down for 2m 10s: refused
             7 sessions still there

SERVICE  STATE      SINCE   SESSIONS  SERVED  IN B  OUT B
web      1/2 serve                 0       0     0      0
  app-1  up         2m 10s         7  12,345     0   5.0M
  app-2  down       2m 10s         7  12,345     0   5.0M
"
        );
    }

    #[test]
    fn what_is_wrong_in_a_file_is_wrapped_even_for_a_pipe() {
        let mut view = view(vec![backend("app-1", State::Up)]);
        let problem = format!("b.toml:3:1: {}", "some words ".repeat(30));
        view.process.configuration.rejected = Some(Rejection {
            at: view.at.clone(),
            problems: vec![problem.clone()],
        });
        let event = Event {
            at: view.at.clone(),
            kind: "rejected".into(),
            service: Some("web".into()),
            text: format!("web was rejected: {problem}"),
            ..Event::default()
        };
        let page = Page {
            view: &view,
            service: None,
            rates: None,
            events: &[event],
            columns: usize::MAX,
            colours: false,
        };
        let text = page.text();
        assert_eq!(text.matches("words").count(), 60, "{text}");
        for line in text.lines() {
            assert!(line.chars().count() <= LINE, "{line}");
        }
    }

    #[test]
    fn backends_at_their_limit_are_shown_so() {
        let mut backends = vec![backend("app-1", State::Up), backend("app-2", State::Up)];
        for backend in &mut backends {
            backend.max_connections = Some(8);
        }
        backends[0].traffic.sessions = 8;
        let cells = |backends: &[Backend]| -> Vec<String> {
            let page = page(&view(backends.to_vec()), None);
            let table = page.lines().skip_while(|line| !line.starts_with("SERVICE"));
            let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            table.skip(1).map(words).collect()
        };
        let one = cells(&backends);
        assert!(one[0].starts_with("web 2/2 serve "), "{one:?}");
        assert!(one[1].starts_with("app-1 full 8/8 "), "{one:?}");
        assert!(one[2].starts_with("app-2 up 2m 10s 7/8 "), "{one:?}");
        backends[1].traffic.sessions = 8;
        let all = cells(&backends);
        assert!(all[0].starts_with("web 2/2 full "), "{all:?}");
    }

    #[test]
    fn sessions_of_those_who_have_left_have_rows_so_that_all_adds_up() {
        let mut view = view(vec![backend("app-1", State::Up)]);
        view.services[0].left = Left {
            backends: 2,
            sessions: 3,
            ..Left::default()
        };
        view.process.left = Left {
            backends: 1,
            sessions: 4,
            ..Left::default()
        };
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let rows = |service| -> Vec<String> {
            let page = page(&view, service);
            let rows = page.lines().filter(|line| line.contains("(left)"));
            rows.map(words).collect()
        };
        let of_service = "(left) 2 backends 3";
        assert_eq!(rows(None), [of_service, "(left) 1 backend 4"]);
        assert_eq!(rows(Some("web")), [of_service]);
        view.services[0].left.named = vec![Departed {
            name: "gone".into(),
            sessions: 2,
        }];
        let text = page(&view, None);
        let words = text.lines().map(words);
        let told: Vec<_> = words.filter(|it| it.contains("left")).collect();
        let of_rest = "(left) 1 backend 1";
        assert_eq!(told, ["gone left 2", of_rest, "(left) 1 backend 4"]);
    }

    #[test]
    fn that_all_is_well_is_said_in_a_line() {
        let view = view(vec![backend("app-1", State::Up)]);
        let page = page(&view, None);
        assert!(
            page.contains("\nAll is well: 1 service, 1 of 1 backends serve\n"),
            "{page}"
        );
    }

    #[test]
    fn whoever_stands_by_is_not_among_those_that_serve() {
        let mut view = view(vec![
            backend("app-1", State::Up),
            backend("app-2", State::Up),
        ]);
        let service = &mut view.services[0];
        (service.backends[1].serving, service.backends[1].why) = (false, Some("stands by".into()));
        let page = page(&view, None);
        let well = "\nAll is well: 1 service, 1 of 2 backends serve, 1 stands by\n";
        assert!(page.contains(well), "{page}");
        for row in ["web      1/2 serve", "  app-2  standby"] {
            assert!(page.contains(row), "{page}");
        }
    }

    #[test]
    fn a_long_service_lists_those_that_are_not_well_and_counts_the_others() {
        let mut backends: Vec<_> = (0..200)
            .map(|number| backend(&format!("app-{number}"), State::Up))
            .collect();
        backends[150] = backend("app-150", State::Down);
        let view = view(backends);
        let short = page(&view, None);
        assert!(short.contains("  199 more that are well\n"), "{short}");
        assert!(short.lines().count() < 15, "{short}");
        let whole = page(&view, Some("web"));
        assert!(whole.contains("  app-199 "), "{whole}");
    }

    #[test]
    fn every_line_of_the_tables_fits_80_columns() {
        let name = "a-name-that-somebody-has-made-out-of-a-host-a-port-and-a-rack-in-a-row";
        let view = view(vec![backend(name, State::Up)]);
        for line in page(&view, Some("web")).lines().skip(3) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn availability_is_never_rounded_up() {
        let with = |availability| {
            let mut backend = backend("a", State::Up);
            backend.record.availability = availability;
            super::availability(&backend)
        };
        assert_eq!(with(Some(0.999_999_9)), "99.999%");
        assert_eq!(with(Some(1.0)), "100%");
        assert_eq!(with(None), "-");
    }
}
