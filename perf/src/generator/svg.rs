//! Plots as inline SVG: axes with round numbers, lines, points and bars.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 45.0;
const COLOURS: [&str; 4] = ["#1f6f8b", "#c8553d", "#5b8c5a", "#8a6fb0"];

/// How values stand on an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// In proportion, from zero.
    Linear,
    /// By their logarithm.
    Log,
}

/// A line with points.
pub struct Series<'a> {
    /// Its name in the legend.
    pub name: &'a str,
    /// Its points, in order.
    pub points: Vec<(f64, f64)>,
}

/// A plot: axes, and what stands in it.
pub struct Plot<'a> {
    /// What it shows, for those who cannot see it.
    pub title: &'a str,
    /// Horizontal axis: its words and scale.
    pub x: (&'a str, Scale),
    /// Vertical axis: its words.
    pub y: &'a str,
    /// Lines.
    pub series: Vec<Series<'a>>,
    /// Whether points are joined, or stand on bars.
    pub bars: bool,
}

struct Axis {
    from: f64,
    to: f64,
    scale: Scale,
    start: f64,
    length: f64,
}

impl Axis {
    fn new(values: impl Iterator<Item = f64>, scale: Scale, start: f64, length: f64) -> Self {
        let (mut from, mut to) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|v| v.is_finite() && (scale == Scale::Linear || *v > 0.0)) {
            (from, to) = (from.min(value), to.max(value));
        }
        match scale {
            Scale::Linear => (from, to) = (0.0, if to > 0.0 { to * 1.05 } else { 1.0 }),
            Scale::Log if from > to => (from, to) = (1.0, 10.0),
            Scale::Log => (from, to) = (from / 1.3, to * 1.3),
        }
        Axis { from, to, scale, start, length }
    }

    fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Log => (value.max(self.from) / self.from).ln() / (self.to / self.from).ln(),
        };
        self.start + share * self.length
    }

    /// Round numbers along it.
    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let rough = (self.to - self.from) / 5.0;
                let magnitude = 10_f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0]
                    .into_iter()
                    .map(|m| m * magnitude)
                    .find(|step| *step >= rough)
                    .unwrap_or(rough);
                let count = (self.to / step).floor() as usize;
                (0..=count).map(|i| i as f64 * step).collect()
            }
            Scale::Log => (-3..=12)
                .flat_map(|power| [1.0, 2.0, 5.0].map(|m| m * 10_f64.powi(power)))
                .filter(|tick| (self.from..=self.to).contains(tick))
                .collect(),
        }
    }
}

/// A number as people write it: three digits, with k, M.
pub fn short(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = if scaled.abs() < 1.0 { format!("{scaled:.3}") } else { format!("{scaled:.2}") };
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{}{unit}", if text.is_empty() { "0" } else { text })
}

/// Text that means nothing to HTML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl Plot<'_> {
    /// The plot as an SVG element.
    pub fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|s| s.points.iter());
        let x = Axis::new(points().map(|p| p.0), self.x.1, LEFT, WIDTH - LEFT - RIGHT);
        let bottom = HEIGHT - BOTTOM;
        let y = Axis::new(points().map(|p| p.1), Scale::Linear, bottom, TOP - bottom);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(self.title)
        );
        self.axes(&mut svg, &x, &y);
        for (index, series) in self.series.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let places = series.points.iter().map(|(a, b)| (x.place(*a), y.place(*b)));
            if self.bars {
                bars(&mut svg, places, bottom, colour);
            } else {
                line(&mut svg, places, colour);
            }
            if self.series.len() > 1 {
                let at = LEFT + 10.0 + 130.0 * index as f64;
                push(
                    &mut svg,
                    format_args!(
                        "<text x=\"{at:.0}\" y=\"14\" fill=\"{colour}\">{}</text>",
                        escape(series.name)
                    ),
                );
            }
        }
        svg.push_str("</svg>");
        svg
    }

    fn axes(&self, svg: &mut String, x: &Axis, y: &Axis) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in y.ticks() {
            let at = y.place(tick);
            push(
                svg,
                format_args!(
                    "<path d=\"M{LEFT} {at:.1}H{right}\" class=\"grid\"/>\
                 <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                    LEFT - 6.0,
                    at + 4.0,
                    short(tick)
                ),
            );
        }
        for tick in x.ticks() {
            let at = x.place(tick);
            push(
                svg,
                format_args!(
                    "<path d=\"M{at:.1} {bottom}v5\" class=\"axis\"/>\
                 <text x=\"{at:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
                    bottom + 18.0,
                    short(tick)
                ),
            );
        }
        push(
            svg,
            format_args!(
                "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" class=\"axis\"/>\
             <text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(14 {:.0}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
                (LEFT + right) / 2.0,
                HEIGHT - 8.0,
                escape(self.x.0),
                (TOP + bottom) / 2.0,
                escape(self.y)
            ),
        );
    }
}

/// Writing to a string cannot fail.
fn push(svg: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = svg.write_fmt(what);
}

fn line(svg: &mut String, places: impl Iterator<Item = (f64, f64)>, colour: &str) {
    let places: Vec<(f64, f64)> = places.collect();
    let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
    push(
        svg,
        format_args!(
            "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join("L")
        ),
    );
    for (x, y) in places {
        push(
            svg,
            format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\"/>"),
        );
    }
}

/// Each bar begins where the last one ends.
fn bars(svg: &mut String, places: impl Iterator<Item = (f64, f64)>, bottom: f64, colour: &str) {
    let mut last = LEFT;
    for (x, y) in places {
        let width = (x - last - 1.0).clamp(1.0, 18.0);
        push(
            svg,
            format_args!(
                "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
                x - width,
                (bottom - y).max(0.5)
            ),
        );
        last = x;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>, scale: Scale, bars: bool) -> String {
        let series = vec![Series { name: "a<b", points }, Series { name: "c", points: vec![] }];
        Plot { title: "t", x: ("x", scale), y: "y", series, bars }.svg()
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.25, "0.25"),
            (5.0, "5"),
            (999.5, "999.5"),
            (12_500.0, "12.5k"),
            (14_880_952.0, "14.88M"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn plots_have_finite_places_within_the_frame() {
        for points in [
            vec![],
            vec![(1.0, 0.0)],
            vec![(0.0, 0.0), (1.0, 5e6), (2.0, 7e6)],
            vec![(100.0, 1.0), (1e9, 50.0)],
        ] {
            for (scale, bars) in [(Scale::Linear, false), (Scale::Log, true)] {
                let svg = plot(points.clone(), scale, bars);
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                assert!(svg.starts_with("<svg") && svg.ends_with("</svg>"));
                assert!(svg.contains("a&lt;b") && !svg.contains("a<b"));
            }
        }
    }

    #[test]
    fn axes_have_round_ticks() {
        let linear = Axis::new([0.0, 14.2].into_iter(), Scale::Linear, 0.0, 100.0);
        assert_eq!(linear.ticks(), [0.0, 5.0, 10.0]);
        assert!((linear.place(14.2 * 1.05) - 100.0).abs() < 1e-9);
        let log = Axis::new([100.0, 1_000.0].into_iter(), Scale::Log, 0.0, 100.0);
        assert_eq!(log.ticks(), [100.0, 200.0, 500.0, 1_000.0]);
    }
}
