//! What `nodewall top` shows and what keys do to it. No terminal, no kernel.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::live::{Choice, Live, Reading, Scope, Sort};
use crate::telemetry::Event;

/// How often can be read, in steps.
const INTERVALS: [Duration; 7] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_mins(1),
];

/// A part of the picture that can be gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Panel {
    Rules,
    Reasons,
    Sources,
    Ports,
    Recent,
}

impl Panel {
    pub(super) const ALL: [Self; 5] = [
        Self::Rules,
        Self::Reasons,
        Self::Sources,
        Self::Ports,
        Self::Recent,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Rules => "Rules",
            Self::Reasons => "Reasons",
            Self::Sources => "Sources",
            Self::Ports => "Ports",
            Self::Recent => "Recent",
        }
    }
}

/// Where a panel stands.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    selected: usize,
    /// The first row that is seen.
    first: usize,
    /// Rows that are seen, and rows there are, when it was last drawn.
    height: usize,
    rows: usize,
}

/// Where reported packets come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reports {
    /// The rings, which somebody fills or nobody does.
    Rings { any: bool },
    /// A daemon that reads them.
    Daemon,
    /// Nowhere, and why.
    Nowhere(String),
}

/// What a key asks for that is not the model's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    Quit,
}

/// All that a picture is made of.
#[derive(Debug)]
pub(super) struct Model {
    live: Live,
    /// What was known when it was paused.
    paused: Option<Box<Live>>,
    pub(super) choice: Choice,
    pub(super) panel: Panel,
    /// Whether the panel takes all of the screen.
    pub(super) is_zoomed: bool,
    pub(super) is_helping: bool,
    /// Whether keys go into the filter.
    pub(super) is_typing: bool,
    pub(super) interval: Duration,
    pub(super) reports: Reports,
    /// Why the last reading failed.
    pub(super) failed: Option<String>,
    /// Told by the picture, which knows how much is seen.
    places: [Cell<Place>; 5],
}

impl Model {
    /// Begins with the first reading.
    pub(super) fn new(reading: Reading, sort: Sort, interval: Duration) -> Self {
        Self {
            live: Live::new(reading),
            paused: None,
            choice: Choice {
                sort,
                ..Choice::default()
            },
            panel: Panel::Rules,
            is_zoomed: false,
            is_helping: false,
            is_typing: false,
            interval,
            reports: Reports::Rings { any: true },
            failed: None,
            places: Default::default(),
        }
    }

    /// What is to be shown.
    pub(super) fn shown(&self) -> &Live {
        self.paused.as_deref().unwrap_or(&self.live)
    }

    pub(super) const fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// Goes on to the next reading.
    pub(super) fn read(&mut self, reading: Reading) {
        self.failed = None;
        self.live.read(reading);
    }

    /// Takes what was reported.
    pub(super) fn take(&mut self, events: Vec<Event>, lost: u64) {
        self.live.take(events, lost);
    }

    /// What has to be said beside the numbers, the gravest alone.
    pub(super) fn remark(&self) -> Option<String> {
        if let Some(why) = &self.failed {
            return Some(format!("cannot read: {why}"));
        }
        match &self.reports {
            Reports::Nowhere(why) => Some(format!("counters alone: {why}")),
            Reports::Rings { any: false } => {
                Some("drops are not reported: see `apply --sample-drops`".to_owned())
            }
            Reports::Daemon | Reports::Rings { any: true } => None,
        }
    }

    /// The selected row of a panel that is in use, and the rows that are seen where it
    /// has so many and so much room.
    pub(super) fn window(
        &self,
        panel: Panel,
        rows: usize,
        height: usize,
    ) -> (Range<usize>, Option<usize>) {
        let mut place = self.places[panel as usize].get();
        place.height = height.max(1);
        place.rows = rows;
        place.selected = place.selected.min(rows.saturating_sub(1));
        let last = place.selected.saturating_sub(place.height - 1);
        let end = rows.saturating_sub(place.height);
        place.first = place.first.clamp(last, place.selected).min(end);
        let seen = place.first..rows.min(place.first + height);
        self.places[panel as usize].set(place);
        let is_in_use = self.panel == panel && rows > 0;
        (seen, is_in_use.then_some(place.selected))
    }

    /// Does what a key says.
    pub(super) fn key(&mut self, key: KeyEvent) -> Asked {
        if key.kind == KeyEventKind::Release {
            return Asked::Nothing;
        }
        let with_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if with_control {
            match key.code {
                KeyCode::Char('c') => return Asked::Quit,
                KeyCode::Char('u') if self.is_typing => self.choice.filter.clear(),
                _ => {}
            }
            return Asked::Nothing;
        }
        if self.is_typing {
            self.type_in(key.code);
            return Asked::Nothing;
        }
        if self.is_helping {
            self.is_helping = false;
            return match key.code {
                KeyCode::Char('q') => Asked::Quit,
                _ => Asked::Nothing,
            };
        }
        match key.code {
            KeyCode::Esc if self.is_zoomed => self.is_zoomed = false,
            KeyCode::Esc if !self.choice.filter.is_empty() => self.choice.filter.clear(),
            KeyCode::Char('q') | KeyCode::Esc => return Asked::Quit,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.is_helping = true,
            KeyCode::Tab => self.move_panel(1),
            KeyCode::BackTab => self.move_panel(Panel::ALL.len() - 1),
            KeyCode::Char(digit @ '1'..='5') => {
                self.panel = Panel::ALL[digit as usize - '1' as usize];
            }
            KeyCode::Enter | KeyCode::Char('f') => self.is_zoomed = !self.is_zoomed,
            KeyCode::Up | KeyCode::Char('k') => {
                self.select(|place| place.selected.saturating_sub(1));
            }
            KeyCode::Down | KeyCode::Char('j') => self.select(|place| place.selected + 1),
            KeyCode::PageUp => {
                self.select(|place| place.selected.saturating_sub(place.height));
            }
            KeyCode::PageDown => self.select(|place| place.selected + place.height),
            KeyCode::Home | KeyCode::Char('g') => self.select(|_| 0),
            KeyCode::End | KeyCode::Char('G') => self.select(|place| place.rows),
            KeyCode::Char('s' | '>') => self.choice.sort = self.choice.sort.moved(1),
            KeyCode::Char('<') => self.choice.sort = self.choice.sort.moved(-1),
            KeyCode::Char('S') => self.choice.reverse = !self.choice.reverse,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char('i') => self.next_interface(),
            KeyCode::Char('p' | ' ') => {
                self.paused = match self.paused {
                    None => Some(Box::new(self.live.clone())),
                    Some(_) => None,
                };
            }
            KeyCode::Char('l') => self.choice.with_logged = !self.choice.with_logged,
            KeyCode::Char('z') => self.choice.hits_only = !self.choice.hits_only,
            KeyCode::Char('+' | '=') => {
                let mut longer = INTERVALS.into_iter();
                let longer = longer.find(|interval| *interval > self.interval);
                self.interval = longer.unwrap_or(self.interval);
            }
            KeyCode::Char('-') => {
                let mut shorter = INTERVALS.into_iter().rev();
                let shorter = shorter.find(|interval| *interval < self.interval);
                self.interval = shorter.unwrap_or(self.interval);
            }
            KeyCode::Char('r') => {
                self.live.reset_tops();
                if let Some(paused) = &mut self.paused {
                    paused.reset_tops();
                }
            }
            _ => {}
        }
        Asked::Nothing
    }

    fn type_in(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.is_typing = false;
                self.choice.filter.clear();
            }
            KeyCode::Backspace => {
                self.choice.filter.pop();
            }
            KeyCode::Char(letter) => self.choice.filter.extend(letter.to_lowercase()),
            _ => {}
        }
        // What is found is seen from its beginning.
        for place in &mut self.places {
            place.get_mut().selected = 0;
        }
    }

    fn move_panel(&mut self, by: usize) {
        self.panel = Panel::ALL[(self.panel as usize + by) % Panel::ALL.len()];
    }

    fn select(&mut self, to: impl Fn(&Place) -> usize) {
        let place = self.places[self.panel as usize].get_mut();
        place.selected = to(place).min(place.rows.saturating_sub(1));
    }

    /// All, then each, then all again.
    fn next_interface(&mut self) {
        let interfaces = self.shown().interfaces();
        let names: Vec<Scope> = std::iter::once(None)
            .chain(interfaces.iter().map(|one| Some(Arc::clone(&one.name))))
            .collect();
        let now = names.iter().position(|name| *name == self.choice.scope);
        // One that is gone is followed by all.
        let next = now.map_or(0, |now| (now + 1) % names.len());
        self.choice.scope.clone_from(&names[next]);
        self.places = Default::default();
    }
}
