//! The lines above INFO that the soak may cause, each with what causes it. Any other one fails it, but for those
//! of the start: they are about the machine that it runs on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::site::{FLOODED, FRAGILE, LISTED, MORTAL, NAMED, PATHED, PROXIED, REHEARSED, Site};
use crate::support::{Line, words};

/// A line, and why it is there.
struct Explained {
    says: &'static str,
    /// Whether it is about what we meant.
    about: fn(&Line) -> bool,
    why: &'static str,
}

const fn always(says: &'static str, why: &'static str) -> Explained {
    Explained {
        says,
        about: |_| true,
        why,
    }
}

const EXPLAINED: &[Explained] = &[
    Explained {
        says: words::BACKEND_DOWN,
        about: of_the_dying,
        why: "its server was told to refuse, was frozen or killed",
    },
    Explained {
        says: words::NOBODY_SERVES,
        about: of_the_dying,
        why: "all servers of the service were told to refuse, or killed",
    },
    Explained {
        says: words::REFUSED_CLIENTS,
        about: |line| line.has("service", FLOODED),
        why: "the flood is above the service's limits",
    },
    Explained {
        says: words::REFUSED_CLIENTS,
        about: |line| line.has("service", PROXIED),
        why: "clients came without a header, or with a bad one",
    },
    Explained {
        says: words::REFUSED_CLIENTS,
        about: |line| line.has("service", REHEARSED) && line.field("refused").is_none(),
        why: "they were let in: its limits only count",
    },
    Explained {
        says: words::LOOK_UP_FAILS,
        about: |line| line.has("services", NAMED),
        why: "the name server was stopped, or the daemon was denied descriptors",
    },
    Explained {
        says: words::MADE_ANEW,
        about: |line| line.has("service", PATHED),
        why: "its socket was removed",
    },
    Explained {
        says: words::PAUSES,
        about: |line| line.has("service", FLOODED),
        why: "slow clients have all of the service's max_connections",
    },
    Explained {
        says: words::LIST_REJECTED,
        about: |line| line.has("service", LISTED),
        why: "the list of backends was broken",
    },
    always(words::REJECTED, "the file was broken"),
    always(
        words::SUSPECT,
        "the load takes the cores that the check needs: it is slower than it was",
    ),
    always(
        "wrong token at the admin endpoint",
        "somebody tried one who does not know it",
    ),
    always("accepting rests", "the daemon was denied descriptors"),
    always(words::STATE_NOT_SAVED, "the daemon was denied descriptors"),
    always(words::ALERT_NOT_SENT, "the daemon was denied descriptors"),
];

fn of_the_dying(line: &Line) -> bool {
    line.has("service", FRAGILE) || line.has("service", MORTAL)
}

/// Writes the lines above INFO to `file`, prints how many there are of each, and returns those that nothing
/// explains.
pub fn account(site: &Site, file: &Path) -> Vec<String> {
    let loud = |line: &Line| line.has("level", "WARN") || line.has("level", "ERROR");
    let lines = site.daemon.log().all(0, loud);
    let raw: String = lines.iter().map(|it| format!("{}\n", it.raw())).collect();
    fs::write(file, raw).unwrap();
    let (mut known, mut unknown) = (BTreeMap::new(), BTreeMap::new());
    let ready = site
        .daemon
        .log()
        .wait(0, words::READY, |line| line.says(words::READY));
    let started = lines
        .iter()
        .take_while(|it| it.text("timestamp") <= ready.text("timestamp"));
    let started = started.count();
    known.insert(
        ("at the start", "of the machine, and as whom it runs"),
        started as u64,
    );
    for line in &lines[started..] {
        let explained = EXPLAINED
            .iter()
            .find(|it| line.says(it.says) && (it.about)(line));
        match explained {
            Some(it) => *known.entry((it.says, it.why)).or_insert(0u64) += 1,
            None => {
                let entry = unknown.entry(line.field("message"));
                entry.or_insert_with(|| (0u64, line.raw().to_owned())).0 += 1;
            }
        }
    }
    println!("{:>10}  log lines above INFO", "");
    for ((says, why), count) in known {
        println!("{count:>10}  {says}: {why}");
    }
    unknown
        .into_values()
        .map(|(count, first)| format!("{count} times, and nothing explains it: {first}"))
        .collect()
}
