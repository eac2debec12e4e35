//! Plots as SVG, by hand: lines over a logarithmic axis, and bars.

use std::fmt::Write as _;

const FONT: &str = "font-family='system-ui, sans-serif' font-size='13'";
const INK: &str = "#1f2430";
const FAINT: &str = "#d5d9e0";
/// nodewall's own is the first.
const COLORS: [&str; 6] = [
    "#0b6bcb", "#c2410c", "#6d28d9", "#0f766e", "#6b7280", "#b45309",
];

/// One curve.
pub(crate) struct Line {
    pub(crate) name: String,
    /// Its place among the colours.
    pub(crate) color: usize,
    /// What is asked for, not measured.
    pub(crate) dashed: bool,
    /// Size and value.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Curves over sizes, from 1 on.
pub(crate) fn lines(title: &str, x: &str, y: &str, lines: &[Line]) -> String {
    const LEFT: f64 = 70.0;
    const TOP: f64 = 60.0;
    const WIDTH: f64 = 560.0;
    const HEIGHT: f64 = 300.0;
    let all = || lines.iter().flat_map(|line| &line.points);
    let most = all().map(|(_, y)| *y).fold(1.0, f64::max);
    let widest = all().map(|(x, _)| x.log10()).fold(1.0, f64::max);
    let step = nice(most / 5.0);
    let top = (most / step).ceil() * step;
    let at_x = |x: f64| LEFT + x.log10() / widest * WIDTH;
    let at_y = |y: f64| TOP + HEIGHT - y.max(0.0) / top * HEIGHT;
    let mut svg = open(860.0, 430.0, title);
    let mut value = 0.0;
    while value <= top + step / 2.0 {
        let y = at_y(value);
        let _ = write!(
            svg,
            "<line x1='{LEFT}' y1='{y:.1}' x2='{}' y2='{y:.1}' stroke='{FAINT}'/>\
             <text x='{}' y='{:.1}' text-anchor='end'>{value}</text>",
            LEFT + WIDTH,
            LEFT - 8.0,
            y + 4.0
        );
        value += step;
    }
    for (decade, name) in (0_i32..).zip(["1", "10", "100", "1k", "10k", "100k", "1M"]) {
        if f64::from(decade) > widest + 0.01 {
            break;
        }
        let _ = write!(
            svg,
            "<text x='{:.1}' y='{}' text-anchor='middle'>{name}</text>",
            at_x(10_f64.powi(decade)),
            TOP + HEIGHT + 20.0
        );
    }
    let _ = write!(
        svg,
        "<text x='{}' y='{}' text-anchor='middle'>{}</text>\
         <text x='{LEFT}' y='{}' fill='{INK}'>{}</text>",
        LEFT + WIDTH / 2.0,
        TOP + HEIGHT + 42.0,
        escaped(x),
        TOP - 14.0,
        escaped(y)
    );
    // Names at the ends of their lines, apart from each other.
    let mut ends: Vec<(f64, &Line)> = lines
        .iter()
        .filter_map(|line| Some((at_y(line.points.last()?.1), line)))
        .collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = TOP - 8.0;
    for (y, line) in ends {
        let color = COLORS[line.color % COLORS.len()];
        let dash = if line.dashed {
            " stroke-dasharray='3 5' opacity='.75'"
        } else {
            ""
        };
        let path: Vec<String> = line
            .points
            .iter()
            .map(|&(x, y)| format!("{:.1},{:.1}", at_x(x), at_y(y)))
            .collect();
        let _ = write!(
            svg,
            "<polyline points='{}' fill='none' stroke='{color}' stroke-width='2'{dash}/>",
            path.join(" ")
        );
        if !line.dashed {
            for &(x, y) in &line.points {
                let _ = write!(
                    svg,
                    "<circle cx='{:.1}' cy='{:.1}' r='3.2' fill='{color}'/>",
                    at_x(x),
                    at_y(y)
                );
            }
        }
        let name_y = y.max(free);
        free = name_y + 16.0;
        let end = line.points.last().map_or(LEFT, |&(x, _)| at_x(x));
        let _ = write!(
            svg,
            "<path d='M{:.1} {y:.1} L{:.1} {name_y:.1}' stroke='{color}' opacity='.4' fill='none'/>\
             <text x='{:.1}' y='{:.1}' fill='{color}'>{}</text>",
            end + 4.0,
            LEFT + WIDTH + 14.0,
            LEFT + WIDTH + 18.0,
            name_y + 4.0,
            escaped(&line.name)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Bars that belong together.
pub(crate) struct Group {
    pub(crate) name: String,
    /// Name, colour, value, what is written beside it.
    pub(crate) bars: Vec<(String, usize, f64, String)>,
}

/// Horizontal bars in groups; `logarithmic` where one is a hundred times
/// another.
pub(crate) fn bars(title: &str, note: &str, groups: &[Group], logarithmic: bool) -> String {
    const LEFT: f64 = 250.0;
    const WIDTH: f64 = 480.0;
    const BAR: f64 = 20.0;
    let all = || groups.iter().flat_map(|group| &group.bars).map(|bar| bar.2);
    let most = all().fold(1.0, f64::max);
    let least = all().filter(|value| *value > 0.0).fold(most, f64::min);
    let from = if logarithmic {
        10_f64.powf(least.log10().floor())
    } else {
        0.0
    };
    let length = |value: f64| {
        if logarithmic {
            (value.max(from) / from).log10() / (most / from).log10().max(0.1) * WIDTH
        } else {
            value.max(0.0) / most * WIDTH
        }
    };
    let rows: usize = groups.iter().map(|group| group.bars.len()).sum();
    #[expect(clippy::cast_precision_loss, reason = "a few bars")]
    let height = 70.0 + rows as f64 * BAR + groups.len() as f64 * 34.0;
    let mut svg = open(860.0, height, title);
    let _ = write!(
        svg,
        "<text x='20' y='48' fill='#5b6472'>{}</text>",
        escaped(note)
    );
    let mut y = 66.0;
    for group in groups {
        y += 24.0;
        let _ = write!(
            svg,
            "<text x='20' y='{y:.1}' font-weight='600'>{}</text>",
            escaped(&group.name)
        );
        y += 8.0;
        for (name, color, value, text) in &group.bars {
            let color = COLORS[color % COLORS.len()];
            let width = length(*value).max(1.0);
            let _ = write!(
                svg,
                "<text x='{}' y='{:.1}' text-anchor='end'>{}</text>\
                 <rect x='{LEFT}' y='{y:.1}' width='{width:.1}' height='{}' rx='2' fill='{color}'/>\
                 <text x='{:.1}' y='{:.1}'>{}</text>",
                LEFT - 8.0,
                y + 14.0,
                escaped(name),
                BAR - 4.0,
                LEFT + width + 6.0,
                y + 13.0,
                escaped(text)
            );
            y += BAR;
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn open(width: f64, height: f64, title: &str) -> String {
    format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' {FONT} fill='{INK}' \
         role='img' aria-label='{0}'><rect width='100%' height='100%' fill='#fff'/>\
         <text x='20' y='26' font-size='16' font-weight='600'>{0}</text>",
        escaped(title)
    )
}

/// 1, 2 or 5 times a power of ten.
fn nice(rough: f64) -> f64 {
    let power = 10_f64.powf(rough.max(0.1).log10().floor());
    let factor = rough / power;
    power
        * if factor <= 1.0 {
            1.0
        } else if factor <= 2.0 {
            2.0
        } else if factor <= 5.0 {
            5.0
        } else {
            10.0
        }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('\'', "&#39;")
}
