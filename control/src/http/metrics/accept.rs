//! In which of the two forms a scrape is answered.

use axum::http::{HeaderMap, header};

/// Whether a client prefers OpenMetrics to plain text, or names it and likes both as much (RFC 9110,
/// 12.5.1).
pub(super) fn wants_open_metrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT);
    let accepted = accepted.iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>();
    let accepted = accepted.join(",");
    let (is_named, open_metrics) = quality(&accepted, "application", "openmetrics-text");
    let (_, text) = quality(&accepted, "text", "plain");
    open_metrics > text || (is_named && open_metrics > 0.0 && open_metrics == text)
}

/// How much a media type is liked, 0 to 1, by the range of `accepted` that fits it most closely, and
/// whether that is the type itself.
fn quality(accepted: &str, kind: &str, subtype: &str) -> (bool, f32) {
    let names = [format!("{kind}/{subtype}"), format!("{kind}/*"), "*/*".to_owned()];
    for (index, name) in names.iter().enumerate() {
        let ranges = accepted.split(',').map(|range| range.split(';').map(str::trim));
        let qualities = ranges.filter_map(|mut range| {
            range.next().filter(|range| range.eq_ignore_ascii_case(name))?;
            let mut weights = range.filter_map(|parameter| parameter.split_once('='));
            let weight = weights.find(|(name, _)| name.eq_ignore_ascii_case("q"));
            let Some((_, weight)) = weight else { return Some(1.0) };
            // What is no weight is no wish either.
            Some(weight.parse().ok().filter(|q| (0.0..=1.0).contains(q)).unwrap_or(0.0))
        });
        if let Some(best) = qualities.reduce(f32::max) {
            return (index == 0, best);
        }
    }
    (false, 0.0)
}

/// OpenMetrics as text of version 0.0.4, where a counter's name ends in `_total` everywhere.
pub(super) fn plain(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // Its type comes next.
            help = rest.split_once(' ');
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let total = if kind == "counter" { "_total" } else { "" };
            if let Some((_, help)) = help.take() {
                text += &format!("# HELP {name}{total} {help}\n");
            }
            text += &format!("# TYPE {name}{total} {kind}\n");
        } else if line != "# EOF" {
            text += line;
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_asked_for() {
        let prefers = |accept: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(header::ACCEPT, header::HeaderValue::from_static(value));
            }
            wants_open_metrics(&headers)
        };
        // As Prometheus 2.42 asks.
        assert!(prefers(&["application/openmetrics-text;version=1.0.0,\
            application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"]));
        assert!(prefers(&["text/plain; q=0.5", "application/openmetrics-text"]));
        // Browsers, curl, and who cannot read OpenMetrics.
        for plain in ["text/html, */*;q=0.8", "*/*", "text/plain;version=0.0.4", ""] {
            assert!(!prefers(&[plain]), "{plain}");
        }
        assert!(!prefers(&[]));
        assert!(!prefers(&["application/openmetrics-text; q=0.2, text/plain"]));
        assert!(!prefers(&["application/openmetrics-text; q=0"]));
        // Ranges count where no closer one does, and what is no weight counts as 0.
        assert!(!prefers(&["text/*;q=0.3, application/openmetrics-text;q=0.2"]));
        assert!(!prefers(&["application/openmetrics-text;q=0.2, */*"]));
        assert!(prefers(&["*/*;q=0.9, application/openmetrics-text, text/plain;q=0.1"]));
        assert!(prefers(&["APPLICATION/*, text/plain;Q=0.5"]));
        assert!(!prefers(&["application/*, text/plain, application/openmetrics-text;q=0"]));
        for bad in ["abc", "2", "-1", "NaN", ""] {
            let accept = format!("text/plain;q=0.9, application/openmetrics-text;q={bad}");
            assert!(!prefers(&[accept.leak()]), "{bad}");
        }
    }

    #[test]
    fn counters_have_their_whole_name_in_plain_text() {
        let open = "# HELP a_b Help a_b.\n# TYPE a_b counter\na_b_total{x=\"y z\"} 3\n\
                    # HELP c Help.\n# TYPE c gauge\nc 1\n# EOF\n";
        let text = "# HELP a_b_total Help a_b.\n# TYPE a_b_total counter\n\
                    a_b_total{x=\"y z\"} 3\n# HELP c Help.\n# TYPE c gauge\nc 1\n";
        assert_eq!(plain(open), text);
    }
}
