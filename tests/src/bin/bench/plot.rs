//! Plots as SVG, by hand: lines over a logarithmic axis, and bars; in the colours
//! of a light or a dark page, as its reader has it.

use std::fmt::Write as _;

const FONT: &str = "font-family='system-ui, sans-serif' font-size='13'";
/// Paper, ink, notes, lines behind all; light and dark.
const INKS: [[&str; 2]; 4] = [
    ["#ffffff", "#0d1117"],
    ["#1f2430", "#e6edf3"],
    ["#5b6472", "#9aa4b2"],
    ["#dfe3e8", "#2b323b"],
];
/// Of what is plotted; nodewall's own is the first.
const COLORS: [[&str; 2]; 6] = [
    ["#0b6bcb", "#58a6ff"],
    ["#c2410c", "#ff9b5e"],
    ["#7c3aed", "#bc8cff"],
    ["#0f766e", "#3fc1b0"],
    ["#6b7280", "#8b949e"],
    ["#a16207", "#e3b341"],
];

/// The colours as a viewer's page has them: light, or dark.
fn style() -> String {
    let of = |shade: usize| {
        let [paper, ink, note, faint] = INKS.map(|ink| ink[shade]);
        let mut style =
            format!(".p{{fill:{paper}}}.i{{fill:{ink}}}.n{{fill:{note}}}.g{{stroke:{faint}}}");
        for (index, color) in COLORS.iter().enumerate() {
            let color = color[shade];
            let _ = write!(
                style,
                ".f{index}{{fill:{color}}}.s{index}{{stroke:{color}}}"
            );
        }
        style
    };
    format!(
        "<style>{}@media (prefers-color-scheme:dark){{{}}}</style>",
        of(0),
        of(1)
    )
}

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
    const TOP: f64 = 70.0;
    const WIDTH: f64 = 560.0;
    const HEIGHT: f64 = 300.0;
    const NAME: f64 = 17.0;
    let all = || lines.iter().flat_map(|line| &line.points);
    let most = all().map(|(_, y)| *y).fold(1.0, f64::max);
    let widest = all().map(|(x, _)| x.log10()).fold(1.0, f64::max);
    let step = nice(most / 5.0);
    let top = (most / step).ceil() * step;
    let at_x = |x: f64| LEFT + x.log10() / widest * WIDTH;
    let at_y = |y: f64| TOP + HEIGHT - y.max(0.0) / top * HEIGHT;
    let mut svg = open(860.0, 436.0, title);
    let mut value = 0.0;
    while value <= top + step / 2.0 {
        let y = at_y(value);
        let _ = write!(
            svg,
            "<line class='g' x1='{LEFT}' y1='{y:.1}' x2='{}' y2='{y:.1}'/>\
             <text class='n' x='{}' y='{:.1}' text-anchor='end'>{value}</text>",
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
            "<text class='n' x='{:.1}' y='{}' text-anchor='middle'>{name}</text>",
            at_x(10_f64.powi(decade)),
            TOP + HEIGHT + 20.0
        );
    }
    let _ = write!(
        svg,
        "<text class='n' x='{}' y='{}' text-anchor='middle'>{}</text>\
         <text class='n' x='20' y='48'>{}</text>",
        LEFT + WIDTH / 2.0,
        TOP + HEIGHT + 42.0,
        escaped(x),
        escaped(y)
    );
    // Names at the ends of their lines, apart from each other.
    let mut ends: Vec<(f64, &Line)> = lines
        .iter()
        .filter_map(|line| Some((at_y(line.points.last()?.1), line)))
        .collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Down from the first, then up again from the foot.
    let mut names: Vec<f64> = Vec::new();
    for (y, _) in &ends {
        names.push(names.last().map_or(*y, |above| y.max(above + NAME)));
    }
    let mut foot = TOP + HEIGHT;
    for name in names.iter_mut().rev() {
        *name = name.min(foot);
        foot = *name - NAME;
    }
    for ((y, line), name_y) in ends.into_iter().zip(names) {
        let color = line.color % COLORS.len();
        let dash = if line.dashed {
            " stroke-dasharray='2 5'"
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
            "<polyline class='s{color}' points='{}' fill='none' stroke-width='2.5' \
             stroke-linecap='round'{dash}/>",
            path.join(" ")
        );
        if !line.dashed {
            for &(x, y) in &line.points {
                let _ = write!(
                    svg,
                    "<circle class='f{color}' cx='{:.1}' cy='{:.1}' r='3.5'/>",
                    at_x(x),
                    at_y(y)
                );
            }
        }
        let end = line.points.last().map_or(LEFT, |&(x, _)| at_x(x));
        let _ = write!(
            svg,
            "<path class='s{color}' d='M{:.1} {y:.1} L{:.1} {y:.1} L{:.1} {name_y:.1}' \
             stroke-width='.8' opacity='.6' fill='none'/>\
             <text class='f{color}' x='{:.1}' y='{:.1}'>{}</text>",
            end + 4.0,
            LEFT + WIDTH + 2.0,
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
    let height = 84.0 + rows as f64 * BAR + groups.len() as f64 * 34.0;
    let mut svg = open(860.0, height, title);
    let _ = write!(
        svg,
        "<text class='n' x='20' y='48'>{}</text>",
        escaped(note)
    );
    // Where a bar's length is a logarithm, how much each decade is.
    let mut decade = from;
    while logarithmic && decade <= most {
        let x = LEFT + length(decade);
        let _ = write!(
            svg,
            "<line class='g' x1='{x:.1}' y1='72' x2='{x:.1}' y2='{:.1}'/>\
             <text class='n' x='{x:.1}' y='67' text-anchor='middle' font-size='11'>{decade}</text>",
            height - 8.0
        );
        decade *= 10.0;
    }
    let mut y = if logarithmic { 70.0 } else { 56.0 };
    for group in groups {
        y += 24.0;
        let _ = write!(
            svg,
            "<text class='i' x='20' y='{y:.1}' font-weight='600'>{}</text>",
            escaped(&group.name)
        );
        y += 8.0;
        for (name, color, value, text) in &group.bars {
            let color = color % COLORS.len();
            let width = length(*value).max(1.0);
            let _ = write!(
                svg,
                "<text class='i' x='{}' y='{:.1}' text-anchor='end'>{}</text>\
                 <rect class='f{color}' x='{LEFT}' y='{y:.1}' width='{width:.1}' height='{}' \
                 rx='2'/><text class='i' x='{:.1}' y='{:.1}'>{}</text>",
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
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' {FONT} role='img' \
         aria-label='{0}'>{1}<rect class='p' width='100%' height='100%' rx='8'/>\
         <text class='i' x='20' y='26' font-size='16' font-weight='600'>{0}</text>",
        escaped(title),
        style()
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
