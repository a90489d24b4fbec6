//! The daemon's stderr as it comes in: parsed lines that a test can wait for.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::Value;

use super::patience::DEADLINE;

/// One line of stderr.
#[derive(Debug)]
pub struct Line {
    raw: String,
    json: Option<Value>,
}

impl Line {
    fn new(raw: String) -> Self {
        let json = serde_json::from_str(&raw).ok().filter(Value::is_object);
        Self { raw, json }
    }

    /// As written.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// Whether its message is this, or this and a colon and more.
    pub fn says(&self, message: &str) -> bool {
        self.value("message")
            .and_then(Value::as_str)
            .and_then(|said| said.strip_prefix(message))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }

    /// A field as text.
    pub fn field(&self, name: &str) -> Option<String> {
        self.value(name).map(|value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        })
    }

    /// A field that must be there, as text.
    pub fn text(&self, name: &str) -> String {
        self.field(name)
            .unwrap_or_else(|| panic!("no field `{name}` in {}", self.raw))
    }

    /// A field that must be there, as a number.
    pub fn number(&self, name: &str) -> u64 {
        let text = self.text(name);
        text.parse()
            .unwrap_or_else(|_| panic!("`{name}` is no number in {}", self.raw))
    }

    /// Whether a field says exactly this.
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.field(name).as_deref() == Some(value)
    }

    /// tracing-subscriber puts the fields into an object of their own unless told to flatten them.
    fn value(&self, name: &str) -> Option<&Value> {
        let json = self.json.as_ref()?;
        json.get("fields")
            .and_then(|fields| fields.get(name))
            .or_else(|| json.get(name))
    }
}

/// Every line so far.
#[derive(Debug, Default)]
pub struct Log {
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Arc<Line>>,
    ended: bool,
}

impl Log {
    /// Reads `stderr` to its end; the body of the reader thread.
    pub fn collect(&self, stderr: impl Read) {
        for raw in BufReader::new(stderr).lines() {
            let Ok(raw) = raw else { break };
            self.state().lines.push(Arc::new(Line::new(raw)));
            self.more.notify_all();
        }
        self.state().ended = true;
        self.more.notify_all();
    }

    /// How many lines there are: later lines are those since this mark.
    pub fn mark(&self) -> usize {
        self.state().lines.len()
    }

    /// The first line since `mark` that `wanted` accepts.
    pub fn wait(&self, mark: usize, what: &str, wanted: impl Fn(&Line) -> bool) -> Arc<Line> {
        let deadline = Instant::now() + DEADLINE;
        let mut seen = mark;
        let mut state = self.state();
        loop {
            if let Some(line) = state.lines[seen.min(state.lines.len())..]
                .iter()
                .find(|line| wanted(line))
            {
                return Arc::clone(line);
            }
            seen = state.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                let over = if state.ended {
                    "before it exited"
                } else {
                    "in time"
                };
                drop(state);
                panic!("the daemon did not log {what} {over}\n{}", self.tail());
            }
            state = self
                .more
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits until stderr is closed, and tells everything that was written to it.
    pub fn wait_for_end(&self) -> String {
        let (state, _) = self
            .more
            .wait_timeout_while(self.state(), DEADLINE, |state| !state.ended)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(state.ended, "stderr is still open");
        state
            .lines
            .iter()
            .map(|line| line.raw() as &str)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// All lines since `mark` that `wanted` accepts.
    pub fn all(&self, mark: usize, wanted: impl Fn(&Line) -> bool) -> Vec<Arc<Line>> {
        let state = self.state();
        state.lines[mark.min(state.lines.len())..]
            .iter()
            .filter(|line| wanted(line))
            .cloned()
            .collect()
    }

    /// The last lines, for the message of a failed test.
    pub fn tail(&self) -> String {
        const MOST: usize = 60;
        let state = self.state();
        let from = state.lines.len().saturating_sub(MOST);
        let lines: Vec<_> = state.lines[from..].iter().map(|line| line.raw()).collect();
        format!("--- the daemon's last lines ---\n{}", lines.join("\n"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
