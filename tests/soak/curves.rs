//! The table as curves: one SVG, a panel for each thing that has to come back to where it was.

use std::error::Error;
use std::fs;
use std::path::Path;

use plotters::prelude::*;

/// Panels, and the columns that each shows.
const PANELS: [(&str, &[&str]); 5] = [
    ("resident memory, MiB", &["resident_mib"]),
    ("descriptors", &["descriptors"]),
    (
        "sessions; in flight at backends; waiting; pipes",
        &["sessions", "in_flight", "waiting", "pipes"],
    ),
    (
        "sessions a second; those that failed where they may",
        &["sessions_per_second", "failed_per_second"],
    ),
    (
        "a short session where servers are well, ms: p50, p99",
        &["p50_ms", "p99_ms"],
    ),
];

const COLOURS: [RGBColor; 4] = [
    RGBColor(214, 69, 65),
    RGBColor(31, 97, 161),
    RGBColor(35, 139, 69),
    RGBColor(122, 81, 149),
];

const WIDTH: u32 = 1100;
const HEIGHT: u32 = 210;

/// Draws what is in `table` into `picture`.
pub fn draw(table: &Path, picture: &Path) -> Result<(), Box<dyn Error>> {
    let text = fs::read_to_string(table)?;
    let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next().unwrap_or_default();
    let rows: Vec<_> = lines.collect();
    let column = |name: &str| names.iter().position(|it| *it == name);
    let curve = |name: &str| -> Vec<(f64, f64)> {
        let (Some(time), Some(value)) = (column("seconds"), column(name)) else {
            return Vec::new();
        };
        let point = |row: &Vec<&str>| {
            let number = |index: usize| row.get(index)?.parse::<f64>().ok();
            Some((number(time)? / 60.0, number(value)?))
        };
        // Nothing was measured while the load rested.
        rows.iter().filter_map(point).collect()
    };
    let size = (WIDTH, HEIGHT * u32::try_from(PANELS.len())?);
    let root = SVGBackend::new(picture, size).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, (title, columns)) in root.split_evenly((PANELS.len(), 1)).iter().zip(PANELS) {
        let curves: Vec<_> = columns.iter().map(|name| curve(name)).collect();
        let points = || curves.iter().flatten();
        let end = points().map(|it| it.0).fold(0.1, f64::max);
        let top = points().map(|it| it.1).fold(0.1, f64::max) * 1.05;
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .caption(title, ("sans-serif", 15))
            .x_label_area_size(22)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..end, 0.0..top)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(12)
            .y_labels(5)
            .x_label_formatter(&|minutes| format!("{minutes:.0} min"))
            .light_line_style(WHITE)
            .draw()?;
        for (points, colour) in curves.into_iter().zip(COLOURS) {
            chart.draw_series([PathElement::new(points, colour.stroke_width(1))])?;
        }
    }
    root.present()?;
    Ok(())
}
