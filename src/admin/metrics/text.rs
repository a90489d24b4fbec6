//! Which text a scraper wants, and how the older one differs from OpenMetrics.

/// What a scraper reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admin) enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus' own text format, 0.0.4: what everybody else reads, people included.
    Prometheus,
}

impl Format {
    /// What whoever says this in `Accept` reads: OpenMetrics if it is named, and liked at least as much
    /// as plain text.
    pub(in crate::admin) fn accepted(accept: &str) -> Self {
        let liking = |of: &str| {
            let ranges = accept.split(',').filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let is_it = parts.next()?.eq_ignore_ascii_case(of);
                is_it.then(|| quality(parts))
            });
            ranges.fold(0.0, f32::max)
        };
        let open_metrics = liking("application/openmetrics-text");
        if open_metrics > 0.0 && open_metrics >= liking("text/plain") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Its media type.
    pub(in crate::admin) fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The `q` among the parameters of a media range, 1 without one (RFC 9110 § 12.4.2).
fn quality<'a>(mut parameters: impl Iterator<Item = &'a str>) -> f32 {
    let value = parameters.find_map(|it| it.strip_prefix("q=").or_else(|| it.strip_prefix("Q=")));
    match value.map(str::parse::<f32>) {
        None => 1.0,
        Some(Ok(quality)) => quality,
        Some(Err(_)) => 0.0,
    }
}

/// OpenMetrics' text in format 0.0.4: the family of a counter is called like its samples, and neither
/// units nor an end are told.
pub(super) fn in_prometheus_format(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = "";
    for line in open_metrics.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        if let Some(told) = comment.strip_prefix("HELP ") {
            help = told;
        } else if let Some(told) = comment.strip_prefix("TYPE ")
            && let Some((family, kind)) = told.split_once(' ')
        {
            let total = if kind == "counter" { "_total" } else { "" };
            if let Some((_, help)) = help.split_once(' ') {
                text.push_str(&format!("# HELP {family}{total} {help}\n"));
            }
            text.push_str(&format!("# TYPE {family}{total} {kind}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0,\
                          application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        assert_eq!(
            Format::accepted("application/openmetrics-text"),
            Format::OpenMetrics
        );
        for other in [
            "",
            "*/*",
            "text/plain",
            "text/html, */*;q=0.8",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text; q=0.3, text/plain; q=0.9",
            "application/openmetrics-text;q=much",
        ] {
            assert_eq!(Format::accepted(other), Format::Prometheus, "{other}");
        }
    }

    #[test]
    fn the_older_text_names_counters_with_total_and_has_no_units_and_no_end() {
        let open_metrics = "# HELP a_seconds How long.\n# TYPE a_seconds counter\n\
                            # UNIT a_seconds seconds\na_seconds_total{b=\"# c\"} 1.5\n\
                            # HELP d Now.\n# TYPE d gauge\nd 2\n# EOF\n";
        assert_eq!(
            in_prometheus_format(open_metrics),
            "# HELP a_seconds_total How long.\n# TYPE a_seconds_total counter\n\
             a_seconds_total{b=\"# c\"} 1.5\n\
             # HELP d Now.\n# TYPE d gauge\nd 2\n"
        );
    }
}
