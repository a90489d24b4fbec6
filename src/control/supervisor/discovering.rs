//! What discovery finds, taken in: names that lead elsewhere, files of backends that have changed.

use std::sync::Arc;
use std::time::SystemTime;

use super::Supervisor;
use super::reloading::{Reload, names_of};
use crate::config::{Held, Listed, Rejected};
use crate::control::discovery::{Answers, Discovered, File, Reading};
use crate::control::event::{Event, Standing};
use crate::control::membership::{Refreshed, tell_circles};
use crate::control::prepare::{Known, tell_rejected, tell_warnings};
use crate::discovery::{News, Question};

impl Supervisor {
    /// What a reload need not find out again.
    pub(super) fn known(&self) -> Known {
        Known {
            reach: self.options.reach.clone(),
            lists: self.running.lists.clone(),
            questions: self.discovery.followed(),
            endpoints: self.admin.open(),
            held: Held::by(&self.running.config),
        }
    }

    /// Follows the names, and watches the files, of the configuration that has just taken effect.
    pub(super) fn discover(&mut self, answers: Answers) {
        self.discovery.follow(self.running.questions(), answers);
        self.running.forget_names();
        let resolve_timeout = self.running.config.runtime.resolve_timeout;
        let services = self.running.config.services.iter();
        let files = services.filter_map(|service| {
            let list = self.running.lists.get(&service.name)?;
            Some(File {
                service: Arc::new(service.clone()),
                path: Arc::clone(&list.path),
                seen: list.reading.seen,
                resolve_timeout,
            })
        });
        self.discovery.watch(files.collect());
        // What was found since the configuration was laid out.
        for serving in self.running.services.0.values() {
            tell_circles(serving.members.config(), |_| true);
        }
        let services = self.running.config.services.iter();
        let all: Vec<_> = services.map(|it| Arc::clone(&it.name)).collect();
        self.refresh(all);
    }

    /// Takes in what was found.
    pub(super) fn discovered(&mut self, found: Discovered) {
        match found {
            Discovered::Answer {
                question,
                endpoints,
                news,
            } => {
                if !self.discovery.follows(&question) {
                    return;
                }
                let services = self.running.asking(&question);
                for news in news {
                    self.tell_news(&question, &services, news);
                }
                if let Some(endpoints) = endpoints {
                    self.running.endpoints.insert(question, endpoints);
                    self.refresh(services);
                }
            }
            Discovered::File {
                service,
                generation,
                reading,
                list,
            } => {
                if self.discovery.is_current(generation) {
                    self.listed(service, reading, list);
                }
            }
        }
    }

    fn listed(
        &mut self,
        service: Arc<str>,
        reading: Reading,
        list: Result<(Listed, Answers), Rejected>,
    ) {
        let (listed, answers) = match list {
            Ok(list) => list,
            Err(rejected) => {
                let list = self.running.lists.get_mut(&service);
                let reach = self.options.reach.as_ref();
                let barred = list.as_ref().and_then(|it| reach?.bars_file(&it.path));
                let problems = barred.map_or_else(|| rejected.lines(), |it| vec![it]);
                let problems = tell_rejected(&service, problems);
                let told = list.map(|it| {
                    if it.problems != problems {
                        it.rejected = Some(SystemTime::now());
                    }
                    it.missing = !reading.seen.is_there();
                    std::mem::replace(&mut it.problems, problems.clone())
                });
                // One that was just written is read once more.
                if told.is_some_and(|told| told != problems) {
                    let service = Some(service);
                    self.tell(|| Event::Rejected { service, problems });
                }
                return;
            }
        };
        tell_warnings(&service, &listed);
        let Some(list) = self.running.lists.get_mut(&service) else {
            return;
        };
        (list.reading, list.backends) = (reading, listed.backends);
        (list.rejected, list.missing) = (None, false);
        if !std::mem::take(&mut list.problems).is_empty() {
            self.tell(|| Event::Accepted {
                service: Arc::clone(&service),
            });
        }
        for (question, (memory, _)) in &answers {
            if !self.discovery.follows(question) {
                let endpoints = memory.endpoints().to_vec();
                self.running.endpoints.insert(question.clone(), endpoints);
            }
        }
        // A reload that is under way will say whom to follow.
        if !matches!(self.reload, Reload::Building(..)) {
            self.discovery.follow(self.running.questions(), answers);
            self.running.forget_names();
        }
        self.refresh(vec![service]);
    }

    /// Gives services the members that they have by now. While a reload is being built on those that
    /// they had, this waits for it.
    fn refresh(&mut self, services: Vec<Arc<str>>) {
        if matches!(self.reload, Reload::Building(..)) {
            return;
        }
        for service in services {
            if let Some(refreshed) = self.running.refresh(&service, &self.prober) {
                if let Some(serving) = self.running.services.0.get(&service) {
                    let (cases, loads) = (&mut self.cases, &self.running.loads);
                    cases.review_service(&service, &serving.members, loads);
                    let added = &refreshed.backends.added;
                    tell_circles(serving.members.config(), |name| {
                        added.iter().any(|id| **id.name() == *name)
                    });
                }
                self.close_sessions_of(&service);
                self.tell_membership(&service, &refreshed);
                self.rebuild(&service);
            }
        }
    }

    fn tell_membership(&self, service: &Arc<str>, refreshed: &Refreshed) {
        let Refreshed {
            backends,
            eligible,
            configured,
            leaving,
        } = refreshed;
        tracing::info!(
            %service,
            plan = %backends,
            changes = names_of(backends),
            sessions_leaving = leaving,
            eligible = %format_args!("{eligible}/{configured}"),
            "backends changed"
        );
        self.tell(|| Event::Membership {
            standing: Standing {
                service: Arc::clone(service),
                eligible: *eligible,
                configured: *configured,
            },
            removed: backends.removed.as_slice().into(),
        });
    }

    fn tell_news(&self, question: &Question, services: &[Arc<str>], news: News) {
        let services = services.join(" ");
        match news {
            News::Failing(error) => {
                tracing::warn!(name = %question, %services, %error, "name look-up fails: the last answer holds");
            }
            News::Answered => {
                tracing::info!(name = %question, %services, "name look-up works again");
            }
            News::Empty => {
                let hold = crate::config::written(self.running.config.discovery.hold);
                tracing::warn!(name = %question, %services, %hold, "name has no address: its backends stay for now");
            }
            News::Over => {
                tracing::warn!(name = %question, %services, "name has no address: its backends leave");
            }
            News::LeftOut(left_out) => {
                tracing::warn!(name = %question, %services, left_out, "name has too many addresses: some are left out");
            }
        }
    }
}
