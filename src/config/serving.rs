//! Who serves when: the keys of a service that say how its tiers stand in for each other, how a backend
//! comes back, and what happens when none is left.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::decode::{Table, mistype};
use super::problem::{Problem, Problems, shown};
use super::value::{self, Fault, LONGEST, SHORTEST};
use crate::health::{FailBack, MinUp, Rules, WhenAllDown};

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
        for key in ["min_up", "fail_back"] {
            if let Some(span) = table.span_of(key) {
                problems.add(
                    Problem::warning(format!("`{key}` has no effect here"))
                        .at(span)
                        .label("every backend of this service has the same priority")
                        .help("give those that stand in for the others priority = 1"),
                );
            }
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
            Err(super::decode::unknown_word("fail_back", word, words)
                .allowed("allowed: \"immediate\", \"manual\", or a duration like \"30s\""))
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
