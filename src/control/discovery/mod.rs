//! Backends that come and go between reloads: who is asked, who watches, and what they have found.
//!
//! Everything here runs beside the loop and comes back as a [`Discovered`]; the loop alone decides
//! what it means. `ask` talks to the resolvers that `system` says, `follow` asks again and again, `watch`
//! looks at files. What an answer changes is decided in [`crate::discovery`].

mod ask;
mod follow;
mod runtime;
mod system;
mod watch;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch as shared};

use self::follow::Follower;
use self::watch::Watcher;
use crate::config::{Listed, Rejected};
use crate::discovery::{Endpoint, News, Question, Resolution};

pub(super) use ask::{Asker, MOST_SOCKETS};
pub(super) use follow::ask_all;
pub(super) use watch::{File, Reading};

/// What was found that wait to be looked at; who finds more waits beyond that.
const FINDINGS: usize = 1024;

/// Something that was found.
#[derive(Debug)]
pub(super) enum Discovered {
    /// A name has news, or leads elsewhere.
    Answer {
        /// Which.
        question: Question,
        /// Where it leads, when that has changed.
        endpoints: Option<Vec<Endpoint>>,
        /// What is worth telling.
        news: Vec<News>,
    },
    /// A file of backends has changed.
    File {
        /// Whose.
        service: Arc<str>,
        /// By which watcher.
        generation: u64,
        /// When it was read, and what it was then.
        reading: Reading,
        /// What it holds, with the answers to what it asks for, or what is wrong with it.
        list: Result<(Listed, Answers), Rejected>,
    },
}

/// What is known of names, and when each is to be asked again.
pub(super) type Answers = HashMap<Question, (Resolution, Duration)>;

/// Everybody who finds.
#[derive(Debug)]
pub(super) struct Discovery {
    followers: HashMap<Question, Follower>,
    watcher: Option<Watcher>,
    /// Counts the watchers: what one finds is checked in the light of its configuration.
    generation: u64,
    asker: shared::Sender<Asker>,
    found: mpsc::Sender<Discovered>,
}

impl Discovery {
    /// Nobody yet, and where to hear of what they find.
    pub(super) fn new() -> (Self, mpsc::Receiver<Discovered>) {
        let (found, findings) = mpsc::channel(FINDINGS);
        let discovery = Self {
            followers: HashMap::new(),
            watcher: None,
            generation: 0,
            asker: shared::Sender::new(Asker::new(Default::default())),
            found,
        };
        (discovery, findings)
    }

    /// Follows the names in `questions` and no other. One that is new begins with what `known` says
    /// of it.
    pub(super) fn follow(&mut self, questions: Vec<Question>, mut known: Answers) {
        let mut before = std::mem::take(&mut self.followers);
        for question in questions {
            let follower = before.remove(&question).unwrap_or_else(|| {
                let (resolution, first) = known.remove(&question).unwrap_or_default();
                let asker = self.asker.subscribe();
                Follower::start(
                    question.clone(),
                    resolution,
                    first,
                    asker,
                    self.found.clone(),
                )
            });
            self.followers.insert(question, follower);
        }
    }

    /// Has every name asked for again, by `asker` from now on.
    pub(super) fn ask_by(&mut self, asker: Asker) {
        self.asker.send_replace(asker);
    }

    /// Watches `files` and no other.
    pub(super) fn watch(&mut self, files: Vec<File>) {
        self.generation += 1;
        let generation = self.generation;
        self.watcher = (!files.is_empty()).then(|| {
            Watcher::start(
                files,
                generation,
                self.asker.subscribe(),
                self.found.clone(),
            )
        });
    }

    /// Whether that watcher is the one that watches.
    pub(super) fn is_current(&self, generation: u64) -> bool {
        self.generation == generation
    }

    /// Every name that is followed.
    pub(super) fn followed(&self) -> HashSet<Question> {
        self.followers.keys().cloned().collect()
    }

    /// Whether that name is followed.
    pub(super) fn follows(&self, question: &Question) -> bool {
        self.followers.contains_key(question)
    }
}
