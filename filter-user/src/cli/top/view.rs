//! The picture: from a model to cells. Nothing is told by colour alone.

use std::fmt::Write as _;
use std::net::IpAddr;

use filter_common::verdict::Verdict;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, RenderDirection, Sparkline};

use super::live::{Choice, Live, Port, RuleRow, Sort, Top, index};
use super::model::{Model, Panel};
use crate::bytes::{grouped, size};
use crate::cli::output::fit;
use crate::datapath::Mode;
use crate::ruleset::{Action, Direction};
use crate::telemetry::{Event, exact_time, time};

/// Below this nothing is drawn but that.
const LEAST: (u16, u16) = (40, 10);
/// Below this one panel is seen at a time.
const ROOMY: (u16, u16) = (78, 20);

/// With colours or without.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    pub(super) color: bool,
}

impl Theme {
    /// One of the first colours of a terminal, which its owner has chosen to be readable.
    fn colored(self, color: Color) -> Style {
        if self.color {
            Style::new().fg(color)
        } else {
            Style::new()
        }
    }

    fn verdict(self, verdict: Verdict) -> Style {
        match verdict {
            Verdict::Drop => self.colored(Color::Red),
            Verdict::Pass => self.colored(Color::Green),
        }
    }

    fn action(self, row: &RuleRow<'_>) -> Style {
        match row.rule.action {
            _ if row.rule.staged => self.colored(Color::Magenta),
            Action::Deny => self.verdict(Verdict::Drop),
            Action::Allow => self.verdict(Verdict::Pass),
            _ => Style::new(),
        }
    }
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, theme: Theme) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        too_small(frame, area);
        return;
    }
    let is_tall = area.height >= 32;
    let [top, body, bottom] = Layout::vertical([
        Constraint::Length(if is_tall { 6 } else { 3 }),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(area);
    header(frame, top, model, theme);
    let is_roomy = area.width >= ROOMY.0 && area.height >= ROOMY.1;
    if is_roomy && !model.is_zoomed {
        let lower = (body.height / 4).clamp(7, 18);
        let recent = (body.height / 6).clamp(3, 14);
        let [rules, lower, recent] = Layout::vertical([
            Constraint::Min(0),
            Constraint::Length(lower),
            Constraint::Length(recent),
        ])
        .areas(body);
        let wide = area.width >= 110;
        let [reasons, sources, ports] = Layout::horizontal(if wide {
            [
                Constraint::Fill(4),
                Constraint::Fill(5),
                Constraint::Fill(3),
            ]
        } else {
            [
                Constraint::Length(35),
                Constraint::Fill(1),
                Constraint::Length(19),
            ]
        })
        .spacing(1)
        .areas(lower);
        for (panel, area) in Panel::ALL
            .into_iter()
            .zip([rules, reasons, sources, ports, recent])
        {
            draw_panel(frame, area, model, theme, panel, false);
        }
    } else {
        draw_panel(frame, body, model, theme, model.panel, true);
    }
    footer(frame, bottom, model);
    if model.is_helping {
        help(frame, area);
    }
}

fn too_small(frame: &mut Frame<'_>, area: Rect) {
    let text = format!(
        "nodewall top needs a terminal of {} x {}; this one is {} x {}. Make it larger, or q to quit",
        LEAST.0, LEAST.1, area.width, area.height
    );
    let text = Paragraph::new(text).wrap(ratatui::widgets::Wrap { trim: true });
    frame.render_widget(text, area);
}

fn header(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    let [title, rest] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let live = model.shown();
    let mut head = vec![Span::styled("nodewall top", BOLD), Span::raw("  ")];
    let is_wide = area.width >= 70;
    let mut tail = time(live.time())[11..].to_owned();
    if is_wide {
        let _ = write!(tail, "  every {} s", model.interval.as_secs_f64());
    }
    if model.is_paused() {
        head.push(Span::styled(" PAUSED ", REVERSED));
        head.push(Span::raw("  "));
    }
    let used: usize = head.iter().map(Span::width).sum();
    let room = usize::from(area.width).saturating_sub(used + tail.len() + 2);
    head.push(Span::raw(fit(&in_force(model, live), room)));
    frame.render_widget(Line::from(head), title);
    frame.render_widget(Line::from(tail).right_aligned(), title);

    let [numbers, picture] = Layout::horizontal(match is_wide {
        true if area.width >= 110 => [Constraint::Length(66), Constraint::Min(0)],
        true => [Constraint::Length(50), Constraint::Min(0)],
        false => [Constraint::Min(0), Constraint::Length(0)],
    })
    .areas(rest);
    let mut lines = Vec::new();
    for (verdict, name) in [(Verdict::Pass, "passed "), (Verdict::Drop, "dropped")] {
        let (count, rate) = live.total(&model.choice, verdict);
        let style = theme.verdict(verdict).add_modifier(Modifier::BOLD);
        let mut spans = vec![
            Span::styled(name, style),
            Span::raw(if is_wide {
                format!(" {:>15}", number(count.packets, 15))
            } else {
                format!(" {:>9}", number(count.packets, 9))
            }),
        ];
        if let Some(rate) = rate {
            spans.push(Span::styled(
                format!("  {:>9}/s", number(rate.packets, 9)),
                BOLD,
            ));
            if is_wide {
                let bits = in_units(rate.bytes.saturating_mul(8), " ");
                spans.push(Span::raw(format!("  {bits:>6}bit/s")));
            }
        }
        lines.push(Line::from(spans));
    }
    if numbers.height > 2 && live.interfaces().len() > 1 && model.choice.scope.is_none() {
        for interface in live.interfaces() {
            let of_it = Choice {
                scope: Some(interface.name.clone()),
                ..Choice::default()
            };
            let drops = live.total(&of_it, Verdict::Drop).1.unwrap_or_default();
            let text = format!("{}, {} drops/s", about(interface), short(drops.packets));
            lines.push(Line::raw(fit(&text, numbers.width.into())));
        }
        let room = usize::from(numbers.height);
        if lines.len() > room {
            let more = lines.len() - room + 1;
            lines.truncate(room - 1);
            lines.push(Line::styled(format!("and {more} more (i)"), DIM));
        }
    }
    frame.render_widget(Paragraph::new(lines), numbers);
    drops(frame, picture, model, theme);
}

/// The drops of the last minutes.
fn drops(frame: &mut Frame<'_>, area: Rect, model: &Model, theme: Theme) {
    if area.width < 16 {
        return;
    }
    let [label, picture] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let drops = model.shown().drops(&model.choice).take(area.width.into());
    let (rates, seconds): (Vec<u64>, Vec<f64>) = drops.unzip();
    let peak = rates.iter().max().copied().unwrap_or(0);
    let text = format!(
        "drops/s, {}, peak {}",
        span(seconds.iter().sum()),
        short(peak)
    );
    frame.render_widget(Line::from(text).right_aligned(), label);
    let sparkline = Sparkline::default()
        .data(rates)
        .max(peak.max(1))
        .direction(RenderDirection::RightToLeft)
        .style(theme.verdict(Verdict::Drop));
    frame.render_widget(sparkline, picture);
}

/// `40 s`, `5 min`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "some seconds, in whole ones"
)]
fn span(seconds: f64) -> String {
    match seconds.round() as u64 {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}

fn in_force(model: &Model, live: &Live) -> String {
    let interfaces = live.interfaces();
    if let Some(scope) = &model.choice.scope {
        let found = interfaces.iter().find(|one| one.name == *scope);
        return found.map_or_else(|| format!("{scope}: not filtered any more"), about);
    }
    match interfaces {
        [] => "nothing is filtered any more".to_owned(),
        [one] => about(one),
        several => {
            let names: Vec<&str> = several.iter().map(|one| &*one.name).collect();
            format!("{} interfaces: {}", several.len(), names.join(", "))
        }
    }
}

fn about(interface: &super::live::Interface) -> String {
    let mode = interface.mode.map_or("device gone", Mode::name);
    let egress = interface
        .hook
        .map_or_else(String::new, |hook| format!(", egress at {}", hook.name()));
    format!(
        "{}: {mode}, generation {}{egress}",
        interface.name, interface.generation
    )
}

fn footer(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    if model.is_typing {
        let line = Line::from(vec![
            Span::styled(" filter: ", BOLD),
            Span::raw(model.choice.filter.clone()),
            Span::styled("_", REVERSED),
            Span::styled("  Enter keeps it, Esc drops it", DIM),
        ]);
        frame.render_widget(line, area);
        return;
    }
    let width = usize::from(area.width);
    let remark = model.remark().map(|remark| format!(" {remark} "));
    let remark = remark.map(|remark| fit(&remark, width.saturating_sub(18)));
    let mut room = width.saturating_sub(remark.as_ref().map_or(0, |text| text.chars().count() + 1));
    let mut keys = Vec::new();
    for (key, what) in [
        ("q", "quit"),
        ("?", "help"),
        ("Tab", "panel"),
        ("s", "sort"),
        ("/", "filter"),
        ("i", "interface"),
        ("p", "pause"),
        ("Enter", "zoom"),
        ("r", "reset"),
        ("z", "zeros"),
    ] {
        let needed = key.len() + what.len() + 3;
        if needed > room {
            break;
        }
        room -= needed;
        keys.push(Span::styled(format!(" {key}"), BOLD));
        keys.push(Span::raw(format!(" {what} ")));
    }
    frame.render_widget(Line::from(keys), area);
    if let Some(remark) = remark {
        frame.render_widget(Line::styled(remark, REVERSED).right_aligned(), area);
    }
}

const KEYS: [(&str, &str, &str, &str); 7] = [
    ("q Esc ^C", "quit", "/", "filter"),
    ("Tab 1-5", "panel", "i", "interface"),
    ("↑↓ PgUp…", "go", "Enter", "zoom"),
    ("s < >", "sort", "p Space", "pause"),
    ("S", "reverse", "+ -", "interval"),
    ("z", "zeros", "r", "reset tops"),
    ("l", "logged", "? h", "help"),
];

/// What there is to know, where there is room for it.
const MORE: [&str; 12] = [
    "",
    "Counters are exact. Packets/s are those since the last reading.",
    "Sources, ports and recent packets come from reported drops: a sample",
    "(apply --sample-drops N), in which each stands for those it was drawn",
    "from. ~ is at most ± too high, and what is not listed is less than ±.",
    "The filter is looked for in policies and their rules' indices, stages,",
    "actions, interfaces, directions, reasons, addresses and ports.",
    "Logged: what Log rules report stands among the recent drops, or not.",
    "Esc first closes what is open, then drops the filter, then quits.",
    "Reset forgets sources, ports and recent packets, never counters.",
    "",
    "Any key closes this.",
];

fn help(frame: &mut Frame<'_>, area: Rect) {
    let has_room = area.width >= 76 && area.height >= 22;
    let mut lines: Vec<Line<'_>> = KEYS
        .iter()
        .map(|(key, what, other, other_what)| {
            Line::from(vec![
                Span::styled(format!("{key:<9}"), BOLD),
                Span::raw(format!("{what:<8} ")),
                Span::styled(format!("{other:<8}"), BOLD),
                Span::raw(format!("{other_what:<10}")),
            ])
        })
        .collect();
    if has_room {
        lines.extend(MORE.iter().map(|line| Line::raw(*line)));
    }
    let width = if has_room { 74 } else { 38 };
    let height = u16::try_from(lines.len()).unwrap_or(area.height) + 2;
    let place = area.centered(
        Constraint::Length(width.min(area.width)),
        Constraint::Length(height.min(area.height)),
    );
    frame.render_widget(Clear, place);
    let block = Block::new()
        .borders(Borders::ALL)
        .title(Span::styled(" Keys ", BOLD));
    frame.render_widget(Paragraph::new(lines).block(block), place);
}

fn draw_panel(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &Model,
    theme: Theme,
    panel: Panel,
    is_alone: bool,
) {
    if area.height < 2 {
        return;
    }
    let [title, rest] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let width = usize::from(area.width);
    let height = usize::from(rest.height);
    let (picture, note) = match panel {
        Panel::Rules => rules(model, theme, width, height),
        Panel::Reasons => reasons(model, theme, width, height),
        Panel::Sources => sources(model, width, height),
        Panel::Ports => ports(model, width, height),
        Panel::Recent => recent(model, theme, width, height),
    };
    frame.render_widget(panel_title(model, panel, is_alone, &note, width), title);
    frame.render_widget(Paragraph::new(picture), rest);
}

/// A line with the panel's name, or all names where it is alone.
fn panel_title<'a>(
    model: &Model,
    panel: Panel,
    is_alone: bool,
    note: &str,
    width: usize,
) -> Line<'a> {
    let mut spans = Vec::new();
    for (number, other) in (1..).zip(Panel::ALL) {
        if other != panel && !is_alone {
            continue;
        }
        let is_in_use = other == model.panel;
        // Where it is narrow, the names of the others are their numbers.
        let name = if is_alone && !is_in_use && width < 60 {
            format!(" {number} ")
        } else {
            format!(" {number} {} ", other.name())
        };
        let style = if is_in_use {
            BOLD.patch(REVERSED)
        } else {
            BOLD
        };
        spans.push(Span::styled(name, style));
    }
    let used: usize = spans.iter().map(Span::width).sum();
    let note = fit(note, width.saturating_sub(used + 2));
    if !note.is_empty() {
        spans.push(Span::raw(format!(" {note} ")));
    }
    let used: usize = spans.iter().map(Span::width).sum();
    spans.push(Span::styled("─".repeat(width.saturating_sub(used)), DIM));
    Line::from(spans)
}

/// A column of a table.
struct Column {
    heading: String,
    is_right: bool,
    /// How wide it is at least.
    least: usize,
    cells: Vec<(String, Style)>,
}

impl Column {
    fn new(heading: &str, is_right: bool, least: usize) -> Self {
        Self {
            heading: heading.to_owned(),
            is_right,
            least,
            cells: Vec::new(),
        }
    }

    fn width(&self) -> usize {
        let cells = self.cells.iter().map(|(text, _)| text.chars().count());
        cells
            .chain([self.least, self.heading.chars().count()])
            .max()
            .unwrap_or(0)
    }

    fn cell(&self, text: &str, width: usize) -> String {
        let text = fit(text, width);
        if self.is_right {
            format!("{text:>width$}")
        } else {
            format!("{text:<width$}")
        }
    }
}

/// Heading and rows, in columns; the one at `elastic` gives way where it is narrow.
/// The selected row is marked.
fn table(
    columns: &[Column],
    elastic: usize,
    selected: Option<usize>,
    width: usize,
) -> Vec<Line<'static>> {
    let mut widths: Vec<usize> = columns.iter().map(Column::width).collect();
    let gaps = columns.len() + 1;
    let others: usize = widths.iter().sum::<usize>() - widths[elastic] + gaps;
    widths[elastic] = widths[elastic].min(width.saturating_sub(others));
    let mut heading = String::from("  ");
    for (column, width) in columns.iter().zip(&widths) {
        heading += &column.cell(&column.heading, *width);
        heading.push(' ');
    }
    let mut lines = vec![Line::styled(fit(heading.trim_end(), width), DIM)];
    let rows = columns.first().map_or(0, |column| column.cells.len());
    for row in 0..rows {
        let is_selected = selected == Some(row);
        let mut spans = vec![Span::raw(if is_selected { "> " } else { "  " })];
        for (place, (column, width)) in columns.iter().zip(&widths).enumerate() {
            let (text, style) = &column.cells[row];
            let style = if is_selected { Style::new() } else { *style };
            spans.push(Span::styled(column.cell(text, *width), style));
            if place + 1 < columns.len() {
                spans.push(Span::raw(" "));
            }
        }
        let line = Line::from(spans);
        lines.push(if is_selected {
            line.style(REVERSED)
        } else {
            line
        });
    }
    lines
}

/// The first place where it is not as in the heading.
fn sorted(heading: &str, is_it: bool, reverse: bool) -> String {
    match (is_it, reverse) {
        (false, _) => heading.to_owned(),
        (true, false) => format!("{heading}▼"),
        (true, true) => format!("{heading}▲"),
    }
}

fn nothing(text: &str, width: usize) -> Vec<Line<'static>> {
    vec![Line::styled(
        format!("  {}", fit(text, width.saturating_sub(2))),
        DIM,
    )]
}

fn per_second(rate: Option<u64>, width: usize) -> String {
    rate.map_or_else(String::new, |rate| number(rate, width))
}

fn rules(model: &Model, theme: Theme, width: usize, height: usize) -> (Vec<Line<'static>>, String) {
    let choice = &model.choice;
    let rows = model.shown().rules(choice);
    let many = rows.len();
    // A heading; and what the selected rule asks for, where there is room.
    let is_explained = model.panel == Panel::Rules && height >= 6;
    let (seen, selected) = model.window(
        Panel::Rules,
        many,
        height.saturating_sub(1 + usize::from(is_explained)),
    );
    let note = note(model, many, "rule", "rules");
    if rows.is_empty() {
        let text = if choice.filter.is_empty() && !choice.hits_only {
            "no rules are in force"
        } else {
            "no rule is like that"
        };
        return (nothing(text, width), note);
    }
    let is_wide = width >= 110;
    let is_narrow = width < 70;
    let several = choice.scope.is_none() && model.shown().interfaces().len() > 1;
    let both_ways = model.shown().has_egress(choice);
    let by = |sort: Sort| choice.sort == sort;
    let mut columns: Vec<(bool, Column)> = vec![
        (several && !is_narrow, Column::new("IF", false, 4)),
        (both_ways && !is_narrow, Column::new("WAY", false, 3)),
        (!is_narrow, Column::new("STAGE", false, 7)),
        (
            true,
            Column::new(
                &sorted("POLICY", by(Sort::Policy), !choice.reverse),
                false,
                8,
            ),
        ),
        (
            true,
            Column::new(&sorted("RULE", by(Sort::Order), !choice.reverse), true, 4),
        ),
        (true, Column::new("ACTION", false, 6)),
        (
            true,
            Column::new(
                &sorted("PACKETS", by(Sort::Packets), choice.reverse),
                true,
                8,
            ),
        ),
        (
            is_wide,
            Column::new(&sorted("BYTES", by(Sort::Bytes), choice.reverse), true, 9),
        ),
        (
            true,
            Column::new(&sorted("PKT/S", by(Sort::Rate), choice.reverse), true, 6),
        ),
    ];
    let digits = if is_narrow { 6 } else { 15 };
    for row in &rows[seen.clone()] {
        let cells = [
            row.interface.to_string(),
            way(row.rule.id.direction).to_owned(),
            row.rule.id.stage.name().to_owned(),
            row.rule.id.policy.to_string(),
            index(row.rule),
            if is_narrow && row.rule.staged {
                format!("({})", row.rule.action.name())
            } else {
                row.action()
            },
            number(row.count.packets, digits),
            size(row.count.bytes),
            per_second(row.rate, digits.min(9)),
        ];
        let has_rate = row.rate.is_some_and(|rate| rate > 0);
        for (place, ((_, column), text)) in columns.iter_mut().zip(cells).enumerate() {
            let style = match place {
                5 => theme.action(row),
                8 if has_rate => BOLD,
                _ if row.count.packets == 0 => DIM,
                _ => Style::new(),
            };
            column.cells.push((text, style));
        }
    }
    let mut columns: Vec<Column> = columns
        .into_iter()
        .filter_map(|(is_there, column)| is_there.then_some(column))
        .collect();
    let elastic = columns
        .iter()
        .position(|column| column.heading.starts_with("POLICY"))
        .unwrap_or(0);
    let used: usize = columns.iter().map(Column::width).sum::<usize>() + columns.len() + 1;
    let room = width.saturating_sub(used + 1);
    if room >= 6 {
        let most = rows.iter().filter_map(|row| row.rate).max().unwrap_or(0);
        let mut bars = Column::new("", false, 0);
        for row in &rows[seen.clone()] {
            let text = bar(row.rate.unwrap_or(0), most, room.min(40));
            bars.cells.push((text, theme.action(row)));
        }
        columns.push(bars);
    }
    let marked = selected.map(|row| row - seen.start);
    let mut lines = table(&columns, elastic, marked, width);
    if let Some(row) = selected
        .filter(|_| is_explained)
        .and_then(|row| rows.get(row))
    {
        lines.resize(height - 1, Line::default());
        let words = row.ruleset.words(row.rule);
        let text = format!("  {} {}: {words}", row.rule.id.policy, index(row.rule));
        lines.push(Line::styled(fit(&text, width), DIM));
    }
    (lines, note)
}

/// How many rows there are, and which are left out.
fn note(model: &Model, many: usize, one: &str, more: &str) -> String {
    let mut note = crate::cli::output::count(many as u64, one, more);
    if !model.choice.filter.is_empty() {
        let _ = write!(note, " with \"{}\"", model.choice.filter);
    }
    if model.choice.hits_only && model.panel == Panel::Rules {
        note += ", no zeros";
    }
    if matches!(one, "rule" | "reason") {
        let _ = write!(note, ", by {}", model.choice.sort.name());
    }
    note
}

const fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "in",
        Direction::Egress => "out",
    }
}

/// A bar of at most `width` cells.
fn bar(value: u64, most: u64, width: usize) -> String {
    const PARTS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    if value == 0 || most == 0 {
        return String::new();
    }
    let eighths = u128::from(value) * width as u128 * 8 / u128::from(most);
    let eighths = usize::try_from(eighths).unwrap_or(usize::MAX).max(1);
    let mut text = "█".repeat((eighths / 8).min(width));
    if !eighths.is_multiple_of(8) {
        text.push(PARTS[eighths % 8]);
    }
    text
}

fn reasons(
    model: &Model,
    theme: Theme,
    width: usize,
    height: usize,
) -> (Vec<Line<'static>>, String) {
    let rows = model.shown().reasons(&model.choice);
    let (seen, selected) = model.window(Panel::Reasons, rows.len(), height.saturating_sub(1));
    if rows.is_empty() {
        return (nothing("no packet yet", width), String::new());
    }
    let digits = if width < 60 { 7 } else { 15 };
    let mut columns = [
        Column::new("REASON", false, 13),
        Column::new("", false, 4),
        Column::new("PACKETS", true, 7),
        Column::new("PKT/S", true, 6),
    ];
    for row in &rows[seen.clone()] {
        let cells = [
            row.reason.name().to_owned(),
            row.verdict.name().to_owned(),
            number(row.count.packets, digits),
            per_second(row.rate, digits.min(9)),
        ];
        for (place, (column, text)) in columns.iter_mut().zip(cells).enumerate() {
            let style = match place {
                1 => theme.verdict(row.verdict),
                3 if row.rate.is_some_and(|rate| rate > 0) => BOLD,
                _ => Style::new(),
            };
            column.cells.push((text, style));
        }
    }
    let marked = selected.map(|row| row - seen.start);
    (table(&columns, 0, marked, width), String::new())
}

fn sources(model: &Model, width: usize, height: usize) -> (Vec<Line<'static>>, String) {
    let top = model.shown().sources(&model.choice);
    heaviest(model, Panel::Sources, &top, "SOURCE", width, height)
}

fn ports(model: &Model, width: usize, height: usize) -> (Vec<Line<'static>>, String) {
    let top = model.shown().ports(&model.choice);
    heaviest(model, Panel::Ports, &top, "PORT", width, height)
}

/// What an item of a top list is called.
trait Name {
    fn name(&self, width: usize) -> String;
}

impl Name for IpAddr {
    fn name(&self, width: usize) -> String {
        shortened(&self.to_string(), width)
    }
}

impl Name for Port {
    fn name(&self, _: usize) -> String {
        self.to_string()
    }
}

/// An address in so many characters: of a long one both ends say more than one.
fn shortened(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width || width < 5 {
        return fit(text, width);
    }
    let head = (width - 1) / 2;
    let tail = width - 1 - head;
    let end: String = text.chars().skip(length - tail).collect();
    text.chars().take(head).chain(['…']).collect::<String>() + &end
}

fn heaviest<K: Name>(
    model: &Model,
    panel: Panel,
    top: &Top<K>,
    heading: &str,
    width: usize,
    height: usize,
) -> (Vec<Line<'static>>, String) {
    let (seen, selected) = model.window(panel, top.items.len(), height.saturating_sub(1));
    let note = match top.error_bound {
        0 => String::new(),
        bound => format!("±{}", short(bound)),
    };
    if top.items.is_empty() {
        let text = if model.choice.filter.is_empty() || top.total == 0 {
            "no drop reported"
        } else {
            "none is like that"
        };
        return (nothing(text, width), note);
    }
    let is_wide = width >= 40;
    let digits = if is_wide { 13 } else { 6 };
    let mut columns = vec![
        Column::new(heading, false, if is_wide { 15 } else { 9 }),
        Column::new("DROPS", true, 6),
    ];
    if width >= 30 {
        columns.push(Column::new("%", true, 4));
    }
    if is_wide {
        columns.push(Column::new("±", true, 4));
    }
    let fixed: usize = columns.iter().skip(1).map(|column| column.least + 1).sum();
    for item in &top.items[seen.clone()] {
        let mark = if item.error > 0 { "~" } else { "" };
        let share = u128::from(item.count) * 1_000 / u128::from(top.total.max(1));
        let mut cells = vec![
            item.key
                .name(width.saturating_sub(fixed + 2 + usize::from(is_wide) * 8)),
            format!("{mark}{}", number(item.count, digits)),
            format!("{}.{}", share / 10, share % 10),
            match item.error {
                0 => String::new(),
                error => short(error),
            },
        ];
        cells.truncate(columns.len());
        for (column, text) in columns.iter_mut().zip(cells) {
            column.cells.push((text, Style::new()));
        }
    }
    let marked = selected.map(|row| row - seen.start);
    (table(&columns, 0, marked, width), note)
}

fn recent(
    model: &Model,
    theme: Theme,
    width: usize,
    height: usize,
) -> (Vec<Line<'static>>, String) {
    let choice = &model.choice;
    let events = model.shown().recent(choice);
    let (seen, selected) = model.window(Panel::Recent, events.len(), height);
    let lost = model.shown().lost();
    let note = match lost {
        0 => String::new(),
        lost => format!("a sample: {} more were not reported", grouped(lost)),
    };
    if events.is_empty() {
        let text = match choice.filter.is_empty() {
            true if choice.with_logged => "no packet reported",
            true => "no drop reported",
            false => "none is like that",
        };
        return (nothing(text, width), note);
    }
    let several = choice.scope.is_none() && model.shown().interfaces().len() > 1;
    let lines = events[seen.clone()].iter().zip(seen).map(|(event, place)| {
        let is_selected = selected == Some(place);
        let text = told(event, several, width >= 70);
        let mut line = Line::from(vec![Span::raw(if is_selected { "> " } else { "  " })]);
        let verdict = event.verdict.name();
        let style = if is_selected {
            Style::new()
        } else {
            theme.verdict(event.verdict)
        };
        line.push_span(Span::raw(format!("{} ", &exact_time(event.time)[11..19])));
        line.push_span(Span::styled(verdict.to_owned(), style));
        line.push_span(Span::raw(format!(" {text}")));
        if is_selected {
            line = line.style(REVERSED);
        }
        line
    });
    (lines.collect(), note)
}

/// What else there is to say of a packet.
fn told(event: &Event, with_interface: bool, with_reason: bool) -> String {
    let mut parts = Vec::new();
    if with_interface {
        parts.push(event.interface.to_string());
    }
    if event.direction == Direction::Egress {
        parts.push("out".to_owned());
    }
    parts.push(event.packet());
    match (&event.policy, with_reason) {
        (Some(policy), _) => parts.push(format!("{policy} {}", event.rule_name())),
        (None, _) => parts.push(event.reason.name().to_owned()),
    }
    if let Some(packets) = event.sampled_1_in.filter(|packets| *packets > 1) {
        parts.push(format!("1 in {}", short(packets)));
    }
    parts.join("  ")
}

/// A number in so many characters: whole where it fits, else with three digits.
fn number(number: u64, width: usize) -> String {
    let whole = grouped(number);
    if whole.len() <= width {
        whole
    } else {
        short(number)
    }
}

/// `999`, `1.23k`, `45.6M`.
fn short(number: u64) -> String {
    in_units(number, "")
}

fn in_units(number: u64, gap: &str) -> String {
    const UNITS: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    let mut unit = 0;
    let mut scale = 1_u64;
    while unit + 1 < UNITS.len() && number / scale >= 1_000 {
        unit += 1;
        scale *= 1_000;
    }
    let whole = number / scale;
    let hundredths = u128::from(number % scale) * 100 / u128::from(scale);
    match (unit, whole) {
        (0, _) => format!("{whole}{gap}"),
        (_, 0..10) => format!("{whole}.{hundredths:02}{gap}{}", UNITS[unit]),
        (_, 10..100) => format!("{whole}.{}{gap}{}", hundredths / 10, UNITS[unit]),
        _ => format!("{whole}{gap}{}", UNITS[unit]),
    }
}
