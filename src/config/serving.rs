//! Who serves when: the keys of a service that say how its tiers stand in for each other, how a backend
//! comes back, and what happens when none is left.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::decode::{Table, mistype};
use super::problem::{Problem, Problems, shown};
use super::service::HASHING_STRATEGY;
use super::value::{self, Fault, LONGEST, SHORTEST};
use crate::health::{FailBack, MinUp, Rules, WhenAllDown};
use crate::strategy::Entry;

pub(super) fn rules(table: &Table<'_>, problems: &mut Problems) -> Rules {
    let preset = Rules::default();
    Rules {
        min_up: min_up(table, problems).unwrap_or(preset.min_up),
        fail_back: table
            .parsed("fail_back", problems, fail_back)
            .unwrap_or(preset.fail_back),
        slow_start: table
            .duration("slow_start", &(Duration::ZERO..=LONGEST), problems)
            .unwrap_or(preset.slow_start),
        when_all_down: table
            .choice("when_all_down", ALL_DOWN, problems)
            .unwrap_or(preset.when_all_down),
    }
}

/// The tier of a backend.
pub(super) fn priority(table: &Table<'_>, problems: &mut Problems) -> u32 {
    table
        .integer("priority", &(0..=LAST_TIER), problems)
        .unwrap_or(0)
}

/// What the rules of `table` do to backends of these priorities: nothing, where they would have to.
pub(super) fn tiers(
    table: &Table<'_>,
    rules: &Rules,
    priorities: impl Iterator<Item = u32> + Clone,
    problems: &mut Problems,
) {
    let Some(first) = priorities.clone().min() else {
        return;
    };
    let last = priorities.clone().max().unwrap_or(first);
    if first == last {
        // `min_up` says there, too, when the service is ready, and what counts as available.
        if let Some(span) = table.span_of("fail_back") {
            problems.add(
                Problem::warning("`fail_back` has no effect here")
                    .at(span)
                    .label("every backend of this service has the same priority")
                    .help("give those that stand in for the others priority = 1"),
            );
        }
        return;
    }
    let before = priorities.filter(|&priority| priority < last).count();
    if let (MinUp::Count(wanted), Some(span)) = (rules.min_up, table.span_of("min_up"))
        && wanted as usize > before
    {
        problems.add(
            Problem::warning(format!(
                "`min_up` is {wanted}, and only {before} come before priority {last}"
            ))
            .at(span)
            .label("the last tier always serves")
            .help("let min_up be at most the number of backends that come before it"),
        );
    }
}

/// How much more than its even share a backend may hold, in thousandths of it.
pub(super) fn max_load(
    table: &Table<'_>,
    strategy: Option<&'static Entry>,
    problems: &mut Problems,
) -> Option<u32> {
    let value = table.get("max_load")?;
    if let Some(entry) = strategy.filter(|entry| entry.name != HASHING_STRATEGY) {
        problems.add(
            Problem::warning(format!("`max_load` has no effect under \"{}\"", entry.name))
                .at(value.span())
                .label(format!("only \"{HASHING_STRATEGY}\" looks at it")),
        );
    }
    let written = match value.get_ref() {
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::String(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => {
            problems.add(mistype("max_load", value, "a number").label(ALLOWED_MAX_LOAD));
            return None;
        }
    };
    let thousandths = written
        .parse::<f64>()
        .ok()
        .map(|number| (number * 1000.0).round())
        .filter(|thousandths| MAX_LOADS.contains(thousandths));
    if thousandths.is_none() {
        let message = format!("`max_load` is {}, which is out of range", shown(&written));
        let problem = Problem::error(message).at(value.span());
        problems.add(problem.label(ALLOWED_MAX_LOAD));
    }
    thousandths.map(|thousandths| thousandths as u32)
}

fn min_up(table: &Table<'_>, problems: &mut Problems) -> Option<MinUp> {
    let value = table.get("min_up")?;
    if value.get_ref().is_integer() {
        return table.integer("min_up", &COUNTS, problems).map(MinUp::Count);
    }
    let Some(text) = value.get_ref().as_str() else {
        problems.add(mistype("min_up", value, "a number or a percentage").label(ALLOWED_MIN_UP));
        return None;
    };
    percent(text)
        .map(MinUp::Percent)
        .map_err(|fault| problems.add(fault.at(value.span())))
        .ok()
}

fn percent(text: &str) -> Result<u8, Fault> {
    let wrong = |why: &str| {
        Fault::new(format!("`min_up` is \"{}\", {why}", shown(text))).allowed(ALLOWED_MIN_UP)
    };
    let Some(number) = text.strip_suffix('%') else {
        let fault = wrong("which is not a percentage");
        return Err(match text.parse::<u32>() {
            Ok(count) => fault.help(format!("write {count} without quotes, or \"{count}%\"")),
            Err(_) => fault,
        });
    };
    match number.trim_end().parse() {
        Ok(percent @ 1..=100) => Ok(percent),
        Ok(_) | Err(_) => Err(wrong("which is out of range")),
    }
}

fn fail_back(text: &str) -> Result<FailBack, Fault> {
    match text {
        "immediate" => Ok(FailBack::Immediate),
        "manual" => Ok(FailBack::Manual),
        // A slip of a word has no digit in it, and a duration always has.
        word if !word.is_empty() && !word.contains(|c: char| c.is_ascii_digit()) => {
            let words = ["immediate", "manual"].into_iter();
            let fault = super::unknown::unknown_word("fail_back", word, words);
            let words = fault.allowed.clone().unwrap_or_default();
            Err(fault.allowed(format!("{words}, or a duration like \"30s\"")))
        }
        duration => {
            value::duration("fail_back", duration, &(SHORTEST..=LONGEST)).map(FailBack::After)
        }
    }
}

const ALL_DOWN: &[(&str, WhenAllDown)] = &[
    ("refuse", WhenAllDown::Refuse),
    ("use-all", WhenAllDown::UseAll),
];
const COUNTS: RangeInclusive<u32> = 1..=65_535;
const ALLOWED_MIN_UP: &str = "allowed: 1 to 65535, or \"1%\" to \"100%\"";
const LAST_TIER: u32 = 255;
const MAX_LOADS: RangeInclusive<f64> = 1010.0..=10_000.0;
const ALLOWED_MAX_LOAD: &str = "allowed: 1.01 to 10";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ServiceConfig, compile};

    fn text(service: &str, backends: &[&str]) -> String {
        let mut text = format!("[[service]]\nname = \"web\"\nlisten = \"1.1.1.1:80\"\n{service}\n");
        for (at, backend) in backends.iter().enumerate() {
            text += &format!("[[service.backend]]\naddress = \"10.0.0.{at}:80\"\n{backend}\n");
        }
        text
    }

    /// One that is active, and one that stands by.
    const TWO: &[&str] = &["", "priority = 1"];

    fn good(service: &str) -> ServiceConfig {
        let loaded = compile(&text(service, TWO), "f").unwrap();
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        loaded.config.services[0].clone()
    }

    /// The one-line form of everything that is wrong.
    fn faults(service: &str, backends: &[&str]) -> String {
        match compile(&text(service, backends), "f") {
            Ok(loaded) => loaded.warnings.lines().join("\n"),
            Err(rejected) => rejected.to_string(),
        }
    }

    #[track_caller]
    fn says(service: &str, fault: &str) {
        let faults = faults(service, TWO);
        assert!(faults.contains(fault), "{fault}\nnot in:\n{faults}");
    }

    #[test]
    fn what_is_not_written_has_its_default() {
        let service = good("");
        assert_eq!(service.serving, Rules::default());
        assert_eq!(service.parameters.max_load, None);
        assert_eq!(service.backends[1].priority, 1);
    }

    #[test]
    fn every_way_to_write_a_rule_is_read() {
        assert_eq!(good("min_up = 1").serving.min_up, MinUp::Count(1));
        assert_eq!(good("min_up = \"60%\"").serving.min_up, MinUp::Percent(60));
        let fail_back = |value: &str| good(&format!("fail_back = \"{value}\"")).serving.fail_back;
        assert_eq!(fail_back("immediate"), FailBack::Immediate);
        assert_eq!(fail_back("manual"), FailBack::Manual);
        let half = Duration::from_secs(30);
        assert_eq!(fail_back("30s"), FailBack::After(half));
        assert_eq!(good("slow_start = \"30s\"").serving.slow_start, half);
        let all = good("when_all_down = \"use-all\"").serving.when_all_down;
        assert_eq!(all, WhenAllDown::UseAll);
        let max_load = |value: &str| {
            let service = format!("strategy = \"source-hash\"\nmax_load = {value}");
            good(&service).parameters.max_load
        };
        assert_eq!(max_load("1.25"), Some(1250));
        assert_eq!(max_load("2"), Some(2000));
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        says("min_up = 0", "`min_up` is 0, which is out of range");
        says("min_up = \"0%\"", "\"1%\" to \"100%\"");
        says("min_up = \"2\"", "write 2 without quotes");
        says("min_up = true", "not a number or a percentage");
        says("fail_back = \"manuel\"", "did you mean \"manual\"?");
        says("fail_back = \"30\"", "write \"30s\" for seconds");
        says("fail_back = \"0s\"", "out of range");
        says("when_all_down = \"use-al\"", "did you mean \"use-all\"?");
        says("max_load = 1.0", "allowed: 1.01 to 10");
        says("max_load = nan", "out of range");
        says("max_load = \"1.25\"", "not a number");
        let faults = faults("", &["priority = 256"]);
        assert!(faults.contains("allowed: 0 to 255"), "{faults}");
    }

    #[test]
    fn what_has_no_effect_is_a_warning() {
        says(
            "max_load = 1.5",
            "`max_load` has no effect under \"round-robin\"",
        );
        says(
            "min_up = 2",
            "`min_up` is 2, and only 1 come before priority 1",
        );
        let faults = |rule| faults(rule, &["priority = 3", "priority = 3"]);
        let manual = faults("fail_back = \"manual\"");
        assert!(manual.contains("has no effect here"), "{manual}");
        let min_up = faults("min_up = 2");
        assert!(!min_up.contains("no effect"), "{min_up}");
    }
}
