//! One Markdown table per case, padded so that a terminal shows it as a table too.

use super::{Results, Spread};
use crate::peers::{BALLAST, DIRECT};
use crate::scenarios::{Better, Scenario};

pub(super) fn render(results: &Results, scenario: &Scenario) -> String {
    let mut text = format!(
        "\n## {}\n\n{}.\n",
        scenario.name.to_uppercase(),
        scenario.about
    );
    for case in results.cases(scenario) {
        text.push_str(&format!("\n**{} {case}**\n\n", scenario.name));
        text.push_str(&case_table(results, scenario, case));
        for contender in results.contenders() {
            if let Some(note) = results.note(scenario, case, contender) {
                text.push_str(&format!("\n- {contender}: {note}"));
            }
        }
        text.push('\n');
    }
    for trouble in results
        .troubles
        .iter()
        .filter(|trouble| trouble.scenario == scenario.name)
    {
        text.push_str(&format!(
            "\n- {} gave nothing in round {}: {}\n",
            trouble.contender, trouble.round, trouble.error
        ));
    }
    text
}

fn case_table(results: &Results, scenario: &Scenario, case: &str) -> String {
    let shown: Vec<_> = (scenario.metrics.iter())
        .filter(|metric| {
            results
                .contenders()
                .any(|name| results.spread(scenario, case, name, metric.key).is_some())
        })
        .collect();
    let has = |wanted: &str| results.contenders().any(|name| name == wanted);
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(shown.iter().map(|metric| {
        let arrow = match metric.better {
            Better::Lower => '↓',
            Better::Higher => '↑',
        };
        format!("{} {} {arrow}", metric.key, metric.unit).replace("  ", " ")
    }));
    let mut ratios = Vec::new();
    if has(DIRECT) {
        ratios.push(Ratio::ToDirect);
    }
    if has(BALLAST) {
        ratios.push(Ratio::OfBallast);
    }
    rows[0].extend(ratios.iter().map(|ratio| ratio.title().to_owned()));
    for contender in results.contenders() {
        let cells: Vec<_> = shown
            .iter()
            .map(|metric| results.spread(scenario, case, contender, metric.key))
            .collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let mut row = vec![contender.to_owned()];
        row.extend(
            cells.iter().zip(&shown).map(|(cell, metric)| {
                cell.map_or("–".to_owned(), |cell| show(cell, metric.digits))
            }),
        );
        for ratio in &ratios {
            let (over, under) = ratio.sides(contender);
            let each: Vec<_> = (shown.iter())
                .filter(|metric| metric.compared && over != under)
                .filter_map(|metric| {
                    let ratio = results.ratio(scenario, case, metric.key, over, under)?;
                    Some(format!("{} {ratio:.2}", metric.key))
                })
                .collect();
            row.push(each.join(" · "));
        }
        rows.push(row);
    }
    // A column of ratios that none has, as when direct connections take no part in a test, says nothing.
    for column in (1..rows[0].len()).rev() {
        if rows.len() > 1 && rows[1..].iter().all(|row| row[column].is_empty()) {
            for row in &mut rows {
                row.remove(column);
            }
        }
    }
    pad(&rows)
}

/// A column of ratios.
#[derive(Clone, Copy)]
enum Ratio {
    ToDirect,
    OfBallast,
}

impl Ratio {
    fn title(self) -> &'static str {
        match self {
            Ratio::ToDirect => "this ÷ direct",
            Ratio::OfBallast => "ballast ÷ this",
        }
    }

    /// Whose figure is divided by whose.
    fn sides(self, contender: &str) -> (&str, &str) {
        match self {
            Ratio::ToDirect => (contender, DIRECT),
            Ratio::OfBallast => (BALLAST, contender),
        }
    }
}

fn show(spread: Spread, digits: usize) -> String {
    let Spread { median, min, max } = spread;
    if min == max {
        return format!("{median:.digits$}");
    }
    format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
}

fn pad(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!(
                "| {cell}{} ",
                " ".repeat(width - cell.chars().count())
            ));
        }
        text.push_str("|\n");
        if index == 0 {
            for width in &widths {
                text.push_str(&format!("|{}", "-".repeat(width + 2)));
            }
            text.push_str("|\n");
        }
    }
    text
}
