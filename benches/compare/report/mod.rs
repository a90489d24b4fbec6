//! The results so far: kept as raw samples, summed up on demand, written after every round, so that an
//! interrupted run loses one round at most.

mod chart;
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::environment::Environment;
use crate::scenarios::{Reading, Scenario};

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    pub(crate) environment: Environment,
    samples: Vec<Sample>,
    /// Runs that gave no figures.
    troubles: Vec<Trouble>,
    #[serde(skip)]
    folder: PathBuf,
    /// The stem of the files.
    #[serde(skip)]
    name: &'static str,
}

#[derive(Clone, Debug, Serialize)]
struct Sample {
    scenario: &'static str,
    case: String,
    contender: &'static str,
    round: usize,
    values: BTreeMap<&'static str, f64>,
    note: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Trouble {
    scenario: &'static str,
    contender: &'static str,
    round: usize,
    error: String,
}

/// What several rounds agree on, and by how much they do not.
#[derive(Clone, Copy, Debug)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Results {
    pub(crate) fn new(environment: Environment, folder: &Path, name: &'static str) -> Results {
        Results {
            environment,
            samples: Vec::new(),
            troubles: Vec::new(),
            folder: folder.to_owned(),
            name,
        }
    }

    pub(crate) fn add(
        &mut self,
        scenario: &Scenario,
        contender: &'static str,
        round: usize,
        reading: Reading,
    ) {
        self.samples.push(Sample {
            scenario: scenario.name,
            case: reading.case,
            contender,
            round,
            values: reading.values.into_iter().collect(),
            note: reading.note,
        });
    }

    pub(crate) fn trouble(
        &mut self,
        scenario: &Scenario,
        contender: &'static str,
        round: usize,
        error: &anyhow::Error,
    ) {
        let error = format!("{error:#}");
        self.troubles.push(Trouble {
            scenario: scenario.name,
            contender,
            round,
            error,
        });
    }

    /// JSON and Markdown of all, and the chart of `scenario`.
    pub(crate) fn save(&self, scenarios: &[&Scenario], current: &Scenario) -> Result<()> {
        fs::create_dir_all(&self.folder)?;
        let mut text = format!("# {}\n\n{}\n", self.name, self.environment.markdown());
        for scenario in scenarios {
            text.push_str(&self.table(scenario));
        }
        // Renamed into place: an interruption leaves the last whole file.
        let write = |extension: &str, content: String| -> Result<()> {
            let file = self.folder.join(self.name).with_extension(extension);
            let fresh = file.with_extension("new");
            fs::write(&fresh, content)?;
            fs::rename(&fresh, &file).with_context(|| file.display().to_string())
        };
        write("json", serde_json::to_string_pretty(self)?)?;
        write("md", text)?;
        chart::draw(
            self,
            current,
            &self
                .folder
                .join(format!("{}-{}.svg", self.name, current.name)),
        )
    }

    /// Markdown that reads as well in a terminal.
    pub(crate) fn table(&self, scenario: &Scenario) -> String {
        table::render(self, scenario)
    }

    /// The cases of a scenario, in the order they were run.
    fn cases(&self, scenario: &Scenario) -> Vec<&str> {
        let mut cases: Vec<&str> = Vec::new();
        for sample in self
            .samples
            .iter()
            .filter(|sample| sample.scenario == scenario.name)
        {
            if !cases.contains(&sample.case.as_str()) {
                cases.push(&sample.case);
            }
        }
        cases
    }

    /// All contenders, whether they took part or not.
    fn contenders(&self) -> impl Iterator<Item = &str> {
        self.environment
            .contenders
            .iter()
            .map(|(name, _)| name.as_str())
    }

    fn spread(
        &self,
        scenario: &Scenario,
        case: &str,
        contender: &str,
        metric: &str,
    ) -> Option<Spread> {
        spread(
            self.values(scenario, case, contender, metric)
                .into_values()
                .collect(),
        )
    }

    /// The median over the rounds of one contender's value divided by another's *in the same round*.
    fn ratio(
        &self,
        scenario: &Scenario,
        case: &str,
        metric: &str,
        over: &str,
        under: &str,
    ) -> Option<f64> {
        let (over, under) = (
            self.values(scenario, case, over, metric),
            self.values(scenario, case, under, metric),
        );
        let ratios = over
            .iter()
            .filter_map(|(round, value)| Some(value / under.get(round)?));
        Some(spread(ratios.filter(|ratio| ratio.is_finite()).collect())?.median)
    }

    /// By round.
    fn values(
        &self,
        scenario: &Scenario,
        case: &str,
        contender: &str,
        metric: &str,
    ) -> BTreeMap<usize, f64> {
        (self.samples.iter())
            .filter(|sample| {
                sample.scenario == scenario.name
                    && sample.case == case
                    && sample.contender == contender
            })
            .filter_map(|sample| Some((sample.round, *sample.values.get(metric)?)))
            .collect()
    }

    /// The first note of a contender on a case.
    fn note(&self, scenario: &Scenario, case: &str, contender: &str) -> Option<&str> {
        (self.samples.iter())
            .filter(|sample| {
                sample.scenario == scenario.name
                    && sample.case == case
                    && sample.contender == contender
            })
            .find_map(|sample| sample.note.as_deref())
    }
}

fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    let (min, max) = (*values.first()?, *values.last()?);
    let middle = values.len() / 2;
    let median = if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2.0
    };
    Some(Spread { median, min, max })
}
