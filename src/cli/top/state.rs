//! What `ballast top` knows and what is chosen in it; what a key does. Pure: no terminal, no daemon,
//! no clock.

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::asker::Order;
use super::history::History;
use super::rows::{Filter, Key, Row, Sort, rows};
use crate::api::{Backend, Change, Event, Service, View};
use crate::cli::backend::outlook;
use crate::cli::findings::{Finding, findings};
use crate::cli::rates::Rates;

/// Everything there is to show.
#[derive(Debug)]
pub(super) struct Top {
    /// Where the daemon answers.
    pub(super) address: String,
    /// Why it will change nothing that is asked for from here, if that is known.
    pub(super) locked: Option<&'static str>,
    /// How it last stood.
    pub(super) view: Option<Box<View>>,
    /// What is to be known of that.
    pub(super) findings: Vec<Finding>,
    /// What has happened lately, oldest first.
    pub(super) events: Vec<Event>,
    pub(super) rates: Rates,
    pub(super) history: History,
    /// Why the daemon does not answer.
    pub(super) trouble: Option<String>,
    pub(super) sort: Sort,
    pub(super) filter: Filter,
    /// The keys go into the filter.
    pub(super) is_typing: bool,
    pub(super) pane: Pane,
    /// The line that keys are about.
    pub(super) selected: Option<Key>,
    /// The first line that is seen.
    pub(super) first: usize,
    /// How many are, as of the last drawing.
    pub(super) page: usize,
    /// What waits for a yes.
    pub(super) proposal: Option<Proposal>,
    /// What came of the last one.
    pub(super) note: Option<Note>,
}

/// What is on the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pane {
    #[default]
    List,
    /// The selected backend alone.
    Detail,
    /// What has happened.
    Events,
    Help,
}

/// A change that waits for a yes, or the news that there will be none.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Proposal {
    pub(super) title: String,
    /// What it will do, and to whom; or why it is not done.
    pub(super) outlook: String,
    /// Without it there is nothing to say yes to.
    pub(super) order: Option<Order>,
}

/// A line that is shown for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) text: String,
    pub(super) is_bad: bool,
    /// In views, which come once a second.
    left: u32,
}

/// Something that happens.
#[derive(Debug)]
pub(super) enum Input {
    Key(KeyEvent),
    /// The daemon has told how it stands, or why not.
    View(Result<Box<View>, String>),
    /// It has told what has happened lately.
    Events(Vec<Event>),
    /// A change was made, or why not.
    Done(Result<String, String>),
}

/// What is to be done about it.
#[derive(Debug, PartialEq)]
pub(super) enum Next {
    Nothing,
    Ask(Order),
    Leave,
}

impl Top {
    /// Before the first answer of the daemon at `address`.
    pub(super) fn new(address: String) -> Self {
        Self {
            address,
            locked: None,
            view: None,
            findings: Vec::new(),
            events: Vec::new(),
            rates: Rates::default(),
            history: History::default(),
            trouble: None,
            sort: Sort::default(),
            filter: Filter::default(),
            is_typing: false,
            pane: Pane::default(),
            selected: None,
            first: 0,
            page: 1,
            proposal: None,
            note: None,
        }
    }

    /// Takes one input.
    pub(super) fn take(&mut self, input: Input) -> Next {
        match input {
            Input::View(Ok(view)) => self.looked(view),
            Input::View(Err(why)) => self.trouble = Some(why),
            Input::Events(events) => self.events = events,
            Input::Done(Ok(text)) => self.note(Ok(text)),
            // Why not, and what to do about it, is more than a line.
            Input::Done(Err(why)) => {
                self.proposal = Some(Proposal {
                    title: "Nothing was done".to_owned(),
                    outlook: why,
                    order: None,
                });
            }
            Input::Key(key) => return self.key(key),
        }
        Next::Nothing
    }

    /// The lines of the list.
    pub(super) fn rows(&self) -> Vec<Row<'_>> {
        match &self.view {
            Some(view) => {
                let known = (&**view, &*self.findings);
                rows(known, &self.rates, self.sort, &self.filter)
            }
            None => Vec::new(),
        }
    }

    /// The backend that is selected, if it is one and is there.
    pub(super) fn backend(&self) -> Option<(&Service, &Backend)> {
        let key = self.selected.as_ref()?;
        let services = &self.view.as_ref()?.services;
        let service = services.iter().find(|it| it.name == key.service)?;
        let name = key.backend.as_ref()?;
        let backend = service.backends.iter().find(|it| it.name == *name)?;
        Some((service, backend))
    }

    /// Since the daemon was started, as it said last.
    pub(super) fn uptime(&self) -> Duration {
        let seconds = self
            .view
            .as_ref()
            .map_or(0.0, |it| it.process.uptime_seconds);
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }

    fn looked(&mut self, view: Box<View>) {
        if let Some(before) = &self.view {
            self.rates = Rates::between(before, &view);
            self.history.add(&view, &self.rates);
        }
        self.trouble = None;
        self.findings = findings(&view);
        self.view = Some(view);
        if let Some(note) = &mut self.note {
            note.left = note.left.saturating_sub(1);
        }
        self.note.take_if(|note| note.left == 0);
        self.settle();
    }

    fn note(&mut self, done: Result<String, String>) {
        let is_bad = done.is_err();
        self.note = Some(Note {
            // The help stands on lines of its own.
            text: done
                .unwrap_or_else(|why| why)
                .replace("\n  ", "; ")
                .replace('\n', " "),
            is_bad,
            left: NOTE,
        });
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a key that means nothing here does nothing"
    )]
    fn key(&mut self, key: KeyEvent) -> Next {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if is_control && key.code == KeyCode::Char('c') {
            return Next::Leave;
        }
        if key.modifiers.contains(KeyModifiers::ALT) {
            // An Escape and a letter that came together, on a slow line: neither is meant for sure.
            return Next::Nothing;
        }
        if let Some(proposal) = self.proposal.take() {
            let Some(order) = &proposal.order else {
                return Next::Nothing;
            };
            return match key.code {
                KeyCode::Char('y' | 'Y') => Next::Ask(order.clone()),
                KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => Next::Nothing,
                // Anything else is no answer.
                _ => {
                    self.proposal = Some(proposal);
                    Next::Nothing
                }
            };
        }
        if self.is_typing {
            self.typed(key.code);
            return Next::Nothing;
        }
        if self.pane == Pane::Help {
            self.pane = Pane::List;
            return Next::Nothing;
        }
        if self.pane == Pane::Events && !OF_EVENTS.contains(&key.code) {
            // What is selected is not to be seen, so nothing is done to it.
            return Next::Nothing;
        }
        match key.code {
            KeyCode::Char('q') => return Next::Leave,
            KeyCode::Esc => self.back(),
            KeyCode::Char('?' | 'h') => self.pane = Pane::Help,
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::PageDown | KeyCode::Char(' ') => self.step(self.page.max(1) as isize),
            KeyCode::PageUp => self.step(-(self.page.max(1) as isize)),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN / 2),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX / 2),
            KeyCode::Enter | KeyCode::Right => self.open(),
            KeyCode::Left => self.pane = Pane::List,
            KeyCode::Char('v') => self.pane = Pane::Events,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('w') => self.filter.only_wrong = !self.filter.only_wrong,
            KeyCode::Char('/') if self.pane == Pane::List => self.is_typing = true,
            KeyCode::Char('d') => self.propose(
                "Drain",
                Change::Drain {
                    deadline_seconds: None,
                },
            ),
            KeyCode::Char('x') => self.propose("Disable", Change::Disable),
            KeyCode::Char('e') => self.propose("Enable", Change::Enable),
            KeyCode::Char('r') => self.propose("Reset", Change::Reset),
            KeyCode::Char('c') => self.propose("Close the sessions of", Change::CloseSessions),
            _ => {}
        }
        self.settle();
        Next::Nothing
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a key that means nothing here does nothing"
    )]
    fn typed(&mut self, code: KeyCode) {
        let text = &mut self.filter.text;
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                text.clear();
                self.is_typing = false;
            }
            KeyCode::Backspace => _ = text.pop(),
            KeyCode::Char(letter) if text.chars().count() < MOST_TYPED => text.push(letter),
            _ => {}
        }
        self.settle();
    }

    /// One step out: of the detail, of a filter.
    fn back(&mut self) {
        if self.pane == Pane::List {
            self.filter.text.clear();
            self.filter.only_wrong = false;
        }
        self.pane = Pane::List;
    }

    fn open(&mut self) {
        match &self.selected {
            Some(Key {
                backend: Some(_), ..
            }) => self.pane = Pane::Detail,
            Some(Key { service, .. }) => {
                let folded = &mut self.filter.folded;
                if !folded.remove(service) {
                    folded.insert(service.clone());
                }
            }
            None => {}
        }
    }

    /// Moves the selection by so many lines.
    fn step(&mut self, by: isize) {
        let lines = self.rows();
        let at = lines
            .iter()
            .position(|row| Some(row.key()) == self.selected);
        let last = lines.len().saturating_sub(1);
        let next = at.map_or(0, |at| at.saturating_add_signed(by).min(last));
        let key = lines.get(next).map(Row::key);
        if key.is_some() {
            self.selected = key;
        }
    }

    /// Something is selected, if there is anything to select.
    fn settle(&mut self) {
        if self.pane != Pane::List {
            return;
        }
        let lines = self.rows();
        let is_there = lines.iter().any(|row| Some(row.key()) == self.selected);
        let first = lines.first().map(Row::key);
        if !is_there {
            self.selected = first;
        }
    }

    fn propose(&mut self, what: &str, change: Change) {
        let Some((service, backend)) = self.backend() else {
            self.note(Err("select a backend first".into()));
            return;
        };
        let (service_name, backend_name) = (service.name.clone(), backend.name.clone());
        self.proposal = Some(match self.locked {
            Some(why) => Proposal {
                title: "Nothing can be changed from here".to_owned(),
                outlook: why.to_owned(),
                order: None,
            },
            None => Proposal {
                title: format!("{what} {service_name}/{backend_name}?"),
                outlook: outlook(service, Some(&backend_name), &change),
                order: Some(Order {
                    service: service_name,
                    backend: backend_name,
                    change,
                }),
            },
        });
    }
}

/// Keys that mean something while events are shown.
const OF_EVENTS: [KeyCode; 5] = [
    KeyCode::Char('q'),
    KeyCode::Char('?'),
    KeyCode::Char('h'),
    KeyCode::Left,
    KeyCode::Esc,
];
/// Views for which a note stays.
const NOTE: u32 = 8;
/// Letters of a filter.
const MOST_TYPED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::State;

    fn view() -> Box<View> {
        let backend = |name: &str| Backend {
            name: name.into(),
            address: Some("10.0.0.1:80".into()),
            state: State::Up,
            enabled: true,
            serving: true,
            ..Backend::default()
        };
        Box::new(View {
            services: vec![Service {
                name: "web".into(),
                backends: vec![backend("a"), backend("b"), backend("c")],
                ..Service::default()
            }],
            ..View::default()
        })
    }

    fn top() -> Top {
        let mut top = Top::new("127.0.0.1:9900".into());
        top.take(Input::View(Ok(view())));
        top
    }

    fn press(top: &mut Top, keys: &str) -> Next {
        let mut next = Next::Nothing;
        for letter in keys.chars() {
            let code = match letter {
                '↓' => KeyCode::Down,
                '↑' => KeyCode::Up,
                '⏎' => KeyCode::Enter,
                '⎋' => KeyCode::Esc,
                letter => KeyCode::Char(letter),
            };
            next = top.take(Input::Key(KeyEvent::new(code, KeyModifiers::NONE)));
        }
        next
    }

    fn selected(top: &Top) -> Option<&str> {
        top.selected.as_ref()?.backend.as_deref()
    }

    #[test]
    fn keys_move_the_selection_and_it_stays_with_its_backend() {
        let mut top = top();
        assert_eq!(selected(&top), None);
        press(&mut top, "↓↓");
        assert_eq!(selected(&top), Some("b"));
        press(&mut top, "↑↑↑↑");
        assert_eq!(selected(&top), None);
        press(&mut top, "G");
        assert_eq!(selected(&top), Some("c"));
        let mut next = view();
        next.services[0].backends.reverse();
        top.take(Input::View(Ok(next)));
        assert_eq!(selected(&top), Some("c"));
        let mut without = view();
        without.services[0].backends.truncate(1);
        top.take(Input::View(Ok(without)));
        assert_eq!(top.selected, Some(Key::service("web")));
    }

    #[test]
    fn a_change_is_made_after_a_yes_and_only_then() {
        let mut top = top();
        assert_eq!(press(&mut top, "d"), Next::Nothing);
        assert!(
            top.note.as_ref().is_some_and(|note| note.is_bad),
            "a service is no backend"
        );
        assert_eq!(press(&mut top, "↓d"), Next::Nothing);
        assert!(top.proposal.is_some());
        assert_eq!(press(&mut top, "n"), Next::Nothing);
        assert_eq!(press(&mut top, "dz⏎"), Next::Nothing);
        let order = Order {
            service: "web".into(),
            backend: "a".into(),
            change: Change::Drain {
                deadline_seconds: None,
            },
        };
        assert_eq!(press(&mut top, "y"), Next::Ask(order));
        assert_eq!(press(&mut top, "y"), Next::Nothing);
        top.take(Input::Done(Ok("web/a drains".into())));
        assert_eq!(top.note.as_ref().map(|it| &*it.text), Some("web/a drains"));
        for _ in 0..NOTE {
            top.take(Input::View(Ok(view())));
        }
        assert_eq!(top.note, None);
    }

    #[test]
    fn whoever_may_change_nothing_is_told_before_being_asked() {
        let mut top = top();
        top.locked = Some("it takes a token");
        press(&mut top, "↓d");
        let told = top.proposal.clone().unwrap();
        assert_eq!((&*told.outlook, told.order), ("it takes a token", None));
        assert_eq!(press(&mut top, "y"), Next::Nothing);
        assert_eq!(top.proposal, None);
        // What the daemon refuses is told as whole.
        top.take(Input::Done(Err(
            "this is not the token\n  look again".into()
        )));
        let told = top.proposal.clone().unwrap();
        assert_eq!(
            (&*told.outlook, told.order),
            ("this is not the token\n  look again", None)
        );
    }

    #[test]
    fn what_is_typed_filters_and_keys_mean_letters_meanwhile() {
        let mut top = top();
        press(&mut top, "/web/b");
        assert_eq!(top.filter.text, "web/b");
        assert_eq!(top.rows().len(), 2);
        assert_eq!(press(&mut top, "⏎q"), Next::Leave);
        press(&mut top, "⎋");
        assert_eq!(top.rows().len(), 4);
    }

    #[test]
    fn a_service_folds_and_a_backend_opens() {
        let mut top = top();
        press(&mut top, "⏎");
        assert_eq!(top.rows().len(), 1);
        press(&mut top, "⏎↓⏎");
        assert_eq!(top.pane, Pane::Detail);
        press(&mut top, "⎋");
        assert_eq!(top.pane, Pane::List);
    }

    #[test]
    fn events_are_looked_at_and_nothing_is_changed_meanwhile() {
        let mut top = top();
        press(&mut top, "↓v");
        assert_eq!(top.pane, Pane::Events);
        press(&mut top, "d↓⏎");
        assert_eq!((top.pane, top.proposal.is_none()), (Pane::Events, true));
        press(&mut top, "⎋");
        assert_eq!((top.pane, selected(&top)), (Pane::List, Some("a")));
    }

    #[test]
    fn a_daemon_that_does_not_answer_leaves_what_was_known() {
        let mut top = top();
        top.take(Input::View(Err("cannot reach it".into())));
        assert!(top.view.is_some() && top.trouble.is_some());
        top.take(Input::View(Ok(view())));
        assert_eq!(top.trouble, None);
    }
}
