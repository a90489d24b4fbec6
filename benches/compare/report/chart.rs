//! One SVG per test: a panel per compared figure, a group of bars per case, a bar per contender with the
//! spread of the rounds as a whisker.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::Results;
use crate::scenarios::{Better, Metric, Scenario};

/// A contender keeps its colour whoever else takes part; two set-ups of one proxy share a hue.
const COLOURS: [(&str, RGBColor); 7] = [
    ("direct", RGBColor(150, 150, 150)),
    ("ballast", RGBColor(214, 69, 65)),
    ("haproxy", RGBColor(31, 97, 161)),
    ("haproxy-1m", RGBColor(107, 174, 214)),
    ("nginx", RGBColor(35, 139, 69)),
    ("nginx-256k", RGBColor(144, 209, 140)),
    ("envoy", RGBColor(122, 81, 149)),
];

/// Of a contender that is new here.
const OTHER: RGBColor = RGBColor(230, 159, 0);

const PANEL_HEIGHT: u32 = 300;
const LEGEND_HEIGHT: u32 = 40;

/// A group of bars and the gap after it, in units of one bar.
const GAP: f64 = 1.0;

pub(super) fn draw(results: &Results, scenario: &Scenario, file: &Path) -> Result<()> {
    let cases = results.cases(scenario);
    let metrics: Vec<&Metric> = (scenario.metrics.iter())
        .filter(|metric| metric.compared && top(results, scenario, &cases, metric) > 0.0)
        .collect();
    if metrics.is_empty() {
        return Ok(());
    }
    let contenders: Vec<&str> = results.contenders().collect();
    let bars = u32::try_from(cases.len() * (contenders.len() + 1))?;
    let width = (bars * 18 + 120).clamp(760, 1800);
    let height = LEGEND_HEIGHT + PANEL_HEIGHT * u32::try_from(metrics.len())?;
    let root = SVGBackend::new(file, (width, height)).into_drawing_area();
    let broken = |error: &dyn std::fmt::Display| anyhow!("drawing {}: {error}", file.display());
    root.fill(&WHITE).map_err(|error| broken(&error))?;
    let (legend, panels) = root.split_vertically(LEGEND_HEIGHT);
    let mut x = 10;
    for contender in &contenders {
        legend
            .draw(&Rectangle::new(
                [(x, 14), (x + 12, 26)],
                colour(contender).filled(),
            ))
            .and_then(|()| {
                legend.draw(&Text::new(
                    (*contender).to_owned(),
                    (x + 17, 13),
                    ("sans-serif", 14),
                ))
            })
            .map_err(|error| broken(&error))?;
        x += 34 + 8 * i32::try_from(contender.len())?;
    }
    for (panel, metric) in panels.split_evenly((metrics.len(), 1)).iter().zip(metrics) {
        self::panel(panel, results, scenario, &cases, &contenders, metric)
            .map_err(|error| broken(&error))?;
    }
    root.present().map_err(|error| broken(&error))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn panel(
    area: &Area<'_>,
    results: &Results,
    scenario: &Scenario,
    cases: &[&str],
    contenders: &[&str],
    metric: &Metric,
) -> Result<(), Box<dyn std::error::Error>> {
    /// Room for the spread's upper end.
    const HEADROOM: f64 = 1.05;
    let better = match metric.better {
        Better::Lower => "less is better",
        Better::Higher => "more is better",
    };
    let caption = format!(
        "{}: {} {} ({better})",
        scenario.name.to_uppercase(),
        metric.key,
        metric.unit
    );
    let group = contenders.len() as f64 + GAP;
    let end = group * cases.len() as f64;
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .caption(caption, ("sans-serif", 16))
        .x_label_area_size(24)
        .y_label_area_size(70)
        .build_cartesian_2d(
            0.0..end,
            0.0..top(results, scenario, cases, metric) * HEADROOM,
        )?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .y_labels(6)
        .y_label_formatter(&tick)
        .light_line_style(WHITE)
        .draw()?;
    for (number, case) in cases.iter().enumerate() {
        let start = group * number as f64 + GAP / 2.0;
        for (index, contender) in contenders.iter().enumerate() {
            let Some(spread) = results.spread(scenario, case, contender, metric.key) else {
                continue;
            };
            let left = start + index as f64;
            let bar = [(left + 0.05, 0.0), (left + 0.95, spread.median.max(0.0))];
            chart.draw_series([Rectangle::new(bar, colour(contender).filled())])?;
            let whisker = [
                (left + 0.5, spread.min.max(0.0)),
                (left + 0.5, spread.max.max(0.0)),
            ];
            chart.draw_series([PathElement::new(whisker.to_vec(), BLACK)])?;
        }
        let (x, y) = chart.backend_coord(&(start + contenders.len() as f64 / 2.0, 0.0));
        let (origin_x, origin_y) = area.get_base_pixel();
        let middle = i32::try_from(case.len())? * 7 / 2;
        area.draw(&Text::new(
            (*case).to_owned(),
            (x - origin_x - middle, y - origin_y + 6),
            ("sans-serif", 13),
        ))?;
    }
    Ok(())
}

fn top(results: &Results, scenario: &Scenario, cases: &[&str], metric: &Metric) -> f64 {
    let spreads = cases.iter().flat_map(|case| {
        results
            .contenders()
            .filter_map(move |name| results.spread(scenario, case, name, metric.key))
    });
    spreads.map(|spread| spread.max).fold(0.0, f64::max)
}

fn colour(contender: &str) -> RGBColor {
    COLOURS
        .iter()
        .find(|(name, _)| *name == contender)
        .map_or(OTHER, |(_, colour)| *colour)
}

/// An axis label without digits that say nothing.
fn tick(value: &f64) -> String {
    if *value >= 10.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}
