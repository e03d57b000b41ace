//! Small line charts in SVG: values along the layers of a network. Colours are those of the page's style.

use std::fmt::Write;

use super::escape::escape;
use super::scale::Scale;

/// A chart.
pub struct Chart<'a> {
    /// What it is of.
    pub title: &'a str,
    /// What is measured up its vertical axis.
    pub up: &'a str,
    /// What is counted along its horizontal axis.
    pub along: &'a str,
    /// The largest number there.
    pub last: u32,
    /// Lines, the least important first.
    pub series: &'a [Series],
    /// A value that has a line of its own.
    pub reference: Option<f64>,
    /// The vertical axis, which charts side by side share.
    pub scale: Option<Scale>,
}

/// A line.
pub struct Series {
    /// Its colour and shape, as in the legend.
    pub style: usize,
    /// From left to right.
    pub points: Vec<Point>,
}

/// A value, with the smallest and the largest of what it sums up.
pub struct Point {
    /// Where.
    pub at: u32,
    /// The value.
    pub value: f64,
    /// From which to which.
    pub range: [f64; 2],
    /// What a pointer that rests on it is told.
    pub tip: String,
}

/// Styles of lines: each has a colour, a dash pattern and a shape of its own.
pub const STYLES: usize = 5;

const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 206.0;
const LEFT: f64 = 40.0;
const RIGHT: f64 = 330.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 168.0;
/// Points that are closer than this are small.
const CLOSE: f64 = 7.0;

impl Series {
    /// All values that the axis has to hold.
    pub fn values(&self) -> impl Iterator<Item = f64> {
        self.points.iter().flat_map(|point| [point.value, point.range[0], point.range[1]])
    }
}

impl Chart<'_> {
    /// The chart as a figure with its title.
    pub fn figure(&self) -> String {
        let title = escape(self.title);
        let Some(scale) = self.scale else {
            return format!("<figure><figcaption>{title}</figcaption><p class=\"note\">nothing to draw</p></figure>\n");
        };
        let label = escape(&format!("{}: {} by {}", self.title, self.up, self.along));
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">\n");
        self.axes(&mut svg, &scale);
        self.series.iter().for_each(|series| self.line(&mut svg, &scale, series));
        format!("<figure><figcaption>{title}</figcaption>\n{svg}</svg></figure>\n")
    }

    fn x(&self, at: u32) -> f64 {
        // One layer alone is in the middle.
        let share = if self.last == 0 { 0.5 } else { f64::from(at.min(self.last)) / f64::from(self.last) };
        LEFT + 6.0 + (RIGHT - LEFT - 12.0) * share
    }

    fn axes(&self, svg: &mut String, scale: &Scale) {
        let log = if scale.log { ", logarithmic" } else { "" };
        let _ = writeln!(svg, "<text x=\"0\" y=\"11\">{}{log}</text>", escape(self.up));
        for (value, label) in scale.ticks() {
            let Some(y) = y(scale, value) else { continue };
            let _ = write!(svg, "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>");
            let _ = writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" class=\"end\">{label}</text>", LEFT - 6.0, y + 3.5);
        }
        if let Some(y) = self.reference.and_then(|value| y(scale, value)) {
            let _ = writeln!(svg, "<path class=\"reference\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>");
        }
        let every = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].into_iter().find(|step| self.last / step <= 7);
        let every = every.unwrap_or(2000);
        for at in (0..=self.last).step_by(every as usize) {
            let x = self.x(at);
            let _ = write!(svg, "<path class=\"axis\" d=\"M{x:.1} {BOTTOM}v4\"/>");
            let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{}\" class=\"middle\">{at}</text>", BOTTOM + 16.0);
        }
        let _ = write!(svg, "<path class=\"axis\" d=\"M{LEFT} {BOTTOM}H{RIGHT}\"/>");
        let (x, y) = ((LEFT + RIGHT) / 2.0, BOTTOM + 32.0);
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" class=\"middle\">{}</text>", escape(self.along));
    }

    fn line(&self, svg: &mut String, scale: &Scale, series: &Series) {
        let (mut line, mut ranges, mut marks) = (String::new(), String::new(), String::new());
        let many = (RIGHT - LEFT) / f64::from(self.last.max(1)) < CLOSE;
        let mut pen = 'M';
        for point in &series.points {
            let (x, Some(y0)) = (self.x(point.at), y(scale, point.value)) else {
                pen = 'M';
                continue;
            };
            let _ = write!(line, "{pen}{x:.1} {y0:.1}");
            pen = 'L';
            if let [Some(low), Some(high)] = point.range.map(|value| y(scale, value))
                && low - high > 1.0
            {
                let _ = write!(ranges, "M{x:.1} {low:.1}V{high:.1}");
            }
            let (shape, tip) = (shape(series.style, x, y0, many), escape(&point.tip));
            let _ = writeln!(marks, "<path d=\"{shape}\"><title>{tip}</title></path>");
        }
        let style = series.style % STYLES;
        let _ = write!(svg, "<g class=\"s{style}\">");
        if !ranges.is_empty() {
            let _ = write!(svg, "<path class=\"range\" d=\"{ranges}\"/>");
        }
        if !line.is_empty() {
            let _ = write!(svg, "<path class=\"line\" d=\"{line}\"/>");
        }
        let _ = writeln!(svg, "\n{marks}</g>");
    }
}

fn y(scale: &Scale, value: f64) -> Option<f64> {
    Some(BOTTOM - (BOTTOM - TOP) * scale.place(value)?)
}

/// The mark of a style around a point: circle, square, triangle, diamond, bar.
fn shape(style: usize, x: f64, y: f64, small: bool) -> String {
    let r = if small { 1.7 } else { 3.0 };
    match style % STYLES {
        0 => format!("M{:.1} {y:.1}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0z", x - r, d = 2.0 * r),
        1 => format!("M{:.1} {:.1}h{d}v{d}h-{d}z", x - r * 0.9, y - r * 0.9, d = r * 1.8),
        2 => format!("M{x:.1} {:.1}l{w:.1} {h:.1}h-{d:.1}z", y - 1.2 * r, w = 1.2 * r, h = 2.1 * r, d = 2.4 * r),
        3 => format!("M{x:.1} {:.1}l{d:.1} {d:.1}l-{d:.1} {d:.1}l-{d:.1} -{d:.1}z", y - 1.3 * r, d = 1.3 * r),
        _ => format!("M{:.1} {:.1}h{:.1}v{:.1}h-{:.1}z", x - 1.4 * r, y - 0.6 * r, 2.8 * r, 1.2 * r, 2.8 * r),
    }
}

/// What colours and shapes mean; `name` by style.
pub fn legend<'a>(entries: impl IntoIterator<Item = (usize, &'a str)>) -> String {
    let entry = |(style, name): (usize, &str)| {
        let shape = shape(style, 14.0, 7.0, false);
        format!(
            "<li><svg class=\"key\" viewBox=\"0 0 28 14\" aria-hidden=\"true\"><g class=\"s{}\"><path class=\"line\" d=\"M0 \
             7H28\"/><path d=\"{shape}\"/></g></svg>{}</li>",
            style % STYLES,
            escape(name)
        )
    };
    format!("<ul class=\"legend\">{}</ul>\n", entries.into_iter().map(entry).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[f64]) -> String {
        let point = |(at, &value): (usize, &f64)| Point {
            at: at as u32,
            value,
            range: [value, value],
            tip: format!("<b>{value}</b>"),
        };
        let series = [Series { style: 7, points: values.iter().enumerate().map(point).collect() }];
        let scale = Scale::new(series[0].values());
        let last = values.len().saturating_sub(1) as u32;
        Chart { title: "a < b", up: "ξ", along: "layer", last, series: &series, reference: Some(1.0), scale }.figure()
    }

    #[test]
    fn charts_hold_whatever_values_there_are() {
        let rows = [
            &[][..],
            &[1.0],
            &[0.0, 0.0],
            &[f64::NAN],
            &[f64::INFINITY, 1.0],
            &[1.0, f64::NAN, 2.0],
            &[-1e300, 1e300],
            &[f64::MIN, f64::MAX],
            &[1e-300, 1.0, 1e300],
        ];
        for values in rows {
            let text = chart(values);
            assert!(!text.contains("NaN\"") && !text.contains("inf") && !text.contains("<b>"), "{values:?}: {text}");
            assert!(text.contains("a &lt; b"), "{text}");
            let drawn = values.iter().filter(|value| value.is_finite()).count();
            assert_eq!(text.matches("<title>").count(), drawn, "{values:?}: {text}");
        }
        // A line does not go on over what is missing.
        assert_eq!(chart(&[1.0, 2.0, f64::NAN, 3.0, 4.0]).matches("class=\"line\"").count(), 1);
        let broken = chart(&[1.0, 2.0, f64::NAN, 3.0, 4.0]);
        let line = broken.split("class=\"line\" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((line.matches('M').count(), line.matches('L').count()), (2, 2), "{line}");
    }
}
