//! `[service.passive]`: what failures of real sessions lead to.

use std::ops::RangeInclusive;

use super::decode::Table;
use super::problem::{Problem, Problems};
use super::value::{self, SOME_TIME};
use crate::health::Passive;

pub(super) fn read(table: &Table<'_>, problems: &mut Problems) -> Passive {
    let preset = Passive::default();
    let passive = Passive {
        enabled: table.boolean("enabled", problems).unwrap_or(preset.enabled),
        failures: table
            .integer("failures", &FAILURES, problems)
            .unwrap_or(preset.failures),
        window: table
            .duration("window", &SOME_TIME, problems)
            .unwrap_or(preset.window),
        confirm: table.boolean("confirm", problems).unwrap_or(preset.confirm),
        eject_time: table
            .duration("eject_time", &SOME_TIME, problems)
            .unwrap_or(preset.eject_time),
        max_ejected: table
            .parsed("max_ejected", problems, |text| {
                value::percent("max_ejected", text, &SHARE)
            })
            .unwrap_or(preset.max_ejected),
    };
    if let Some(span) = table.span_of("eject_time")
        && passive.confirm
    {
        problems.add(
            Problem::warning("`eject_time` has no effect here")
                .at(span)
                .label("a backend that a probe took out returns when its probes are good")
                .help("write confirm = false to eject for a time, without asking by a probe"),
        );
    }
    passive
}

const FAILURES: RangeInclusive<u32> = 1..=1000;
/// None at all is what `enabled = false` is for.
const SHARE: RangeInclusive<u8> = 1..=100;
