//! Which files were told to be rejected: the configuration, and those of services.

use std::collections::HashSet;
use std::sync::Arc;

use crate::config::Occasion;
use crate::control::alerts::drafting::{About, Draft};
use crate::control::alerts::notice::{Details, Status};

/// Those that were told to be rejected.
#[derive(Debug, Default)]
pub(super) struct Files(HashSet<File>);

/// A service's file of backends; `None` is the configuration.
type File = Option<Arc<str>>;

impl Files {
    /// Tells that a file is rejected. Each time: whoever repairs it wants to know what is wrong now.
    pub(super) fn rejected(&mut self, file: &File, problems: &[String], draft: &mut Draft<'_>) {
        if is_its_business(file, draft) {
            self.0.insert(file.clone());
            tell(file, Status::Firing, problems, draft);
        }
    }

    /// Tells that the file of a service is good again.
    pub(super) fn accepted(&mut self, service: &Arc<str>, draft: &mut Draft<'_>) {
        let file = Some(Arc::clone(service));
        if self.0.remove(&file) {
            tell(&file, Status::Resolved, &[], draft);
        }
    }

    /// Takes in that these files are `rejected`, and no others.
    pub(super) fn review(&mut self, rejected: &[File], draft: &mut Draft<'_>) {
        let rejected = rejected.iter().filter(|it| is_its_business(it, draft));
        let rejected = rejected.cloned().collect();
        let told = std::mem::replace(&mut self.0, rejected);
        for file in told.difference(&self.0) {
            tell(file, Status::Resolved, &[], draft);
        }
        for file in self.0.difference(&told) {
            tell(file, Status::Firing, &[], draft);
        }
    }
}

/// The configuration is everybody's, the file of a service is that of those who are told of it.
fn is_its_business(file: &File, draft: &Draft<'_>) -> bool {
    file.as_ref().is_none_or(|it| draft.config.is_about(it))
}

fn tell(file: &File, status: Status, problems: &[String], draft: &mut Draft<'_>) {
    let about = file.as_ref().map_or(About::Configuration, About::Service);
    let short = |problem: &String| problem.chars().take(MOST_OF_A_PROBLEM).collect();
    let details = Details::Reload {
        problems: problems.iter().take(MOST_PROBLEMS).map(short).collect(),
    };
    draft.tell(Occasion::ReloadFailed, status, about, details);
}

/// Problems of a file that an alert tells; the log has all of them.
const MOST_PROBLEMS: usize = 10;
/// Characters of each.
const MOST_OF_A_PROBLEM: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Event;
    use crate::control::alerts::watch::testing::{config, standing, told};
    use Occasion::ReloadFailed;
    use Status::{Firing, Resolved};

    #[test]
    fn a_rejected_reload_is_told_each_time_and_its_end_once() {
        let rejected = Event::Rejected {
            service: None,
            problems: ["x".repeat(10_000)].into(),
        };
        let config = config("on = \"reload-failed\"\nservices = \"db\"");
        let events = [
            rejected.clone(),
            rejected,
            standing("web", 4),
            standing("web", 4),
        ];
        let (fails, ends) = (vec![(ReloadFailed, Firing)], vec![(ReloadFailed, Resolved)]);
        assert_eq!(told(&config, &events), [fails.clone(), fails, ends, vec![]]);
    }

    #[test]
    fn a_rejected_list_is_told_with_its_service_until_it_is_good_or_gone() {
        let rejected = |service: &str| Event::Rejected {
            service: Some(service.into()),
            problems: ["x".into()].into(),
        };
        let accepted = Event::Accepted {
            service: "web".into(),
        };
        let config = config("on = \"reload-failed\"\nservices = \"web\"");
        let events = [
            rejected("db"),
            rejected("web"),
            accepted.clone(),
            accepted,
            rejected("web"),
            standing("db", 4),
        ];
        let (fails, ends) = (vec![(ReloadFailed, Firing)], vec![(ReloadFailed, Resolved)]);
        assert_eq!(
            told(&config, &events),
            [vec![], fails.clone(), ends.clone(), vec![], fails, ends]
        );
    }
}
