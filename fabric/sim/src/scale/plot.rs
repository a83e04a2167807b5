//! A picture of how cost grows: panels of lines over logarithmic axes, as SVG.

use std::fmt::Write;

use super::results::{Results, shown};

const WIDTH: f64 = 340.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 62.0;
const TOP: f64 = 34.0;
const COLOURS: [&str; 5] = ["#1b6ca8", "#c8553d", "#4f772d", "#7b5ea7", "#8a6d1b"];

/// One panel: lines of figures whose names are `<prefix>/<number> <things>`.
struct Panel {
    title: &'static str,
    things: &'static str,
    /// What the legend calls it, and its prefix.
    lines: &'static [(&'static str, &'static str)],
}

const PANELS: [Panel; 6] = [
    Panel {
        title: "placements a second, one core",
        things: "nodes",
        lines: &[
            ("shared", "placements/shared"),
            ("pinned", "placements/pinned"),
            ("device", "placements/device"),
            ("constraint, spread", "placements/constraint"),
        ],
    },
    Panel {
        title: "a job is everywhere, seconds",
        things: "nodes",
        lines: &[("0.5 ms, 1 % loss", "a job is everywhere")],
    },
    Panel {
        title: "idle gossip a node, bytes a second",
        things: "nodes",
        lines: &[("datagrams and streams", "idle gossip a node")],
    },
    Panel {
        title: "idle processor time a node, us a second",
        things: "nodes",
        lines: &[("core of the agent", "idle processor time a node")],
    },
    Panel {
        title: "bytes of an entry",
        things: "entries",
        lines: &[("with its index", "an entry in memory"), ("index alone", "of it the index")],
    },
    Panel {
        title: "merging an entry, nanoseconds",
        things: "entries",
        lines: &[("new", "merging a new entry"), ("known", "merging a known entry")],
    },
];

/// The picture.
pub fn svg(results: &Results) -> String {
    let rows = PANELS.len().div_ceil(2);
    let (width, height) = (WIDTH * 2.0, HEIGHT * rows as f64);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (at, panel) in PANELS.iter().enumerate() {
        let (x, y) = (WIDTH * (at % 2) as f64, HEIGHT * (at / 2) as f64);
        let _ = writeln!(text, "<g transform=\"translate({x} {y})\">");
        draw(&mut text, panel, results);
        text.push_str("</g>\n");
    }
    text.push_str("</svg>\n");
    text
}

fn draw(text: &mut String, panel: &Panel, results: &Results) {
    let lines: Vec<Vec<(f64, f64)>> =
        panel.lines.iter().map(|(_, prefix)| points(results, prefix, panel.things)).collect();
    let all: Vec<(f64, f64)> = lines.iter().flatten().copied().collect();
    let _ =
        writeln!(text, "<text x=\"{LEFT}\" y=\"18\" font-weight=\"bold\">{}</text>", panel.title);
    if all.is_empty() {
        let _ = writeln!(text, "<text x=\"{LEFT}\" y=\"60\">not measured</text>");
        return;
    }
    let (right, bottom) = (WIDTH - 16.0, HEIGHT - 30.0);
    let across = Axis::over(all.iter().map(|(x, _)| *x), LEFT, right);
    let up = Axis::over(all.iter().map(|(_, y)| *y), bottom, TOP);
    for tick in across.ticks() {
        let (x, label) = (across.place(tick), shown(tick));
        let _ = writeln!(
            text,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"#ddd\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            bottom + 14.0
        );
    }
    for tick in up.ticks() {
        let (y, label) = (up.place(tick), shown(tick));
        let _ = writeln!(
            text,
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 5.0,
            y + 4.0
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"{right}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#666\">{}</text>",
        bottom + 26.0,
        panel.things
    );
    for (at, (line, (name, _))) in lines.iter().zip(panel.lines).enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let placed: Vec<(f64, f64)> =
            line.iter().map(|(x, y)| (across.place(*x), up.place(*y))).collect();
        let path: Vec<String> = placed.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (x, y) in placed {
            let _ =
                writeln!(text, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        let (x, y) = (LEFT + 8.0, bottom - 8.0 - 13.0 * at as f64);
        let _ = writeln!(text, "<text x=\"{x}\" y=\"{y}\" fill=\"{colour}\">{name}</text>");
    }
}

/// Figures named `<prefix>/<number> <things>`, by number.
fn points(results: &Results, prefix: &str, things: &str) -> Vec<(f64, f64)> {
    let number = |name: &str| -> Option<f64> {
        let rest = name.strip_prefix(prefix)?.strip_prefix('/')?;
        rest.strip_suffix(things)?.trim().parse().ok()
    };
    let found = results.figures.iter().filter_map(|f| Some((number(&f.name)?, f.value)));
    let mut points: Vec<(f64, f64)> = found.collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

/// A logarithmic axis from one place of the picture to another.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let logs: Vec<f64> = values.map(|value| value.max(1e-9).log10()).collect();
        let low = logs.iter().copied().fold(f64::INFINITY, f64::min);
        let high = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // At least a decade, so that noise does not look like growth.
        let missing = (1.0 - (high - low)).max(0.0) / 2.0;
        Self { low: low - missing - 0.05, high: high + missing + 0.05, from, to }
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value.max(1e-9).log10() - self.low) / (self.high - self.low);
        self.from + (self.to - self.from) * share
    }

    /// 1, 2 and 5 of every decade; of many decades 1 alone.
    fn ticks(&self) -> Vec<f64> {
        let steps: &[f64] = if self.high - self.low > 2.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let decades = self.low.floor() as i32..=self.high.ceil() as i32;
        decades
            .flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)))
            .filter(|tick| (self.low..=self.high).contains(&tick.log10()))
            .collect()
    }
}

#[cfg(test)]
mod tests;
