//! Decides how the farm looks in a terminal.

use std::sync::Arc;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::canvas::{Canvas, Circle, Context, Line as Stroke};
use ratatui::widgets::{Block, Borders, Clear, Paragraph, Wrap};
use turnwise_engine::{NodeId, ServerInstant};

use super::super::show::shortened;
use crate::job::{JobId, JobView};
use crate::rfc3339;
use crate::store::{NodeView, Tally};
use crate::watch::{Farm, News, SlotView, Weight};

/// On less than this nothing can be read.
const SMALLEST: (u16, u16) = (50, 14);
/// The width of the ring, and of the names of lanes.
const RING_WIDTH: u16 = 30;
const NAME_WIDTH: usize = 14;
/// How long what went wrong stands in the headline.
const TROUBLE_SHOWN_NANOS: i64 = 20_000_000_000;
/// The rows of the ring, and of the queues.
const RING_HEIGHT: u16 = 13;

/// What is on the screen.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// The farm; none before the first answer.
    pub(super) farm: Option<Arc<Farm>>,
    /// The server's clock.
    pub(super) clock: Option<ServerInstant>,
    /// What went wrong last, and when by the server's clock; no time: it lasts, since the database does not answer.
    pub(super) trouble: Option<(String, Option<ServerInstant>)>,
    pub(super) tally: Option<Tally>,
    pub(super) list: List,
    pub(super) jobs: Vec<JobView>,
    /// The job that is chosen, one of `jobs`: the list changes under it.
    pub(super) chosen: Option<JobId>,
    /// A job of which is asked whether it is to be cancelled.
    pub(super) asks: Option<JobId>,
    /// What came of the last key.
    pub(super) said: Option<String>,
    pub(super) help: bool,
}

/// Which jobs are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum List {
    /// Those that were given up.
    #[default]
    Dead,
    /// Those that wait to be tried again.
    Retrying,
    /// Those that run.
    Running,
}

impl Board {
    /// Where in the list the chosen job is.
    pub(super) fn place(&self) -> Option<usize> {
        let chosen = self.chosen?;
        self.jobs.iter().position(|job| job.id == chosen)
    }

    /// Choose the job at this place, or the last one.
    pub(super) fn choose(&mut self, place: usize) {
        self.chosen = self.jobs.get(place).or(self.jobs.last()).map(|job| job.id);
    }

    /// The list was read again. Where the chosen job is not in it any more none is chosen: no other takes its place
    /// under somebody's finger.
    pub(super) fn list_anew(&mut self, jobs: Vec<JobView>) {
        self.jobs = jobs;
        self.chosen = self.place().and(self.chosen);
    }

    /// Something has happened.
    pub(super) fn learn(&mut self, news: News) {
        if news.answers && self.trouble.as_ref().is_some_and(|(_, at)| at.is_none()) {
            self.trouble = None;
        }
        for event in news.events.iter().filter(|event| event.what.weight() == Weight::Trouble) {
            let at = event.at.as_deref().and_then(rfc3339::parse);
            self.trouble = Some((event.what.words(), at));
        }
        if news.farm.is_some() {
            self.farm = news.farm;
        }
    }
}

/// Draw all of it.
pub(super) fn draw(frame: &mut Frame<'_>, board: &Board) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let say = format!(
            "{}x{} is too small: this needs {}x{}. q leaves",
            area.width, area.height, SMALLEST.0, SMALLEST.1
        );
        frame.render_widget(Paragraph::new(say).wrap(Wrap { trim: true }), area);
        return;
    }
    let wide = area.height >= SMALLEST.1 + 10;
    let top = if wide { RING_HEIGHT } else { 6 };
    let [head, upper, jobs, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(top),
        Constraint::Min(4),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(headline(board), head);
    match board.farm.as_deref() {
        None => {
            let trouble = board.trouble.as_ref().map(|(trouble, _)| trouble.as_str());
            let say = trouble.unwrap_or("waiting for the database");
            frame.render_widget(
                Paragraph::new(shortened(say, 400)).wrap(Wrap { trim: true }),
                upper,
            );
        }
        Some(farm) => upper_part(frame, board, farm, upper, wide),
    }
    frame.render_widget(jobs_list(board, jobs), jobs);
    frame.render_widget(footline(board), foot);
    if board.help {
        help(frame, area);
    }
}

fn upper_part(frame: &mut Frame<'_>, board: &Board, farm: &Farm, area: Rect, wide: bool) {
    let ring_width = if wide && area.width >= 80 { RING_WIDTH } else { 0 };
    let [ring, rest] =
        Layout::horizontal([Constraint::Length(ring_width), Constraint::Min(10)]).areas(area);
    if ring_width > 0 {
        frame.render_widget(ring_canvas(board, farm), ring);
    }
    let queues = if wide { 5 } else { 0 };
    let [lanes, below] =
        Layout::vertical([Constraint::Min(3), Constraint::Length(queues)]).areas(rest);
    frame.render_widget(Paragraph::new(lane_lines(farm, lanes)), lanes);
    frame.render_widget(queue_lines(board), below);
}

fn headline(board: &Board) -> Line<'static> {
    let mut spans = vec![Span::styled("Turnwise  ", Style::new().add_modifier(Modifier::BOLD))];
    if let (Some(farm), Some(clock)) = (board.farm.as_deref(), board.clock) {
        let wanted = 1e9 / farm.cadence().period.as_nanos() as f64;
        let beats = farm.beats_a_second().map_or("–".to_owned(), |beats| format!("{beats:.2}"));
        let slot = farm.cadence().slot_at(clock);
        let owner = farm.roster().owner(slot).map(|owner| farm.member(owner).name);
        let turn =
            owner.map_or("nobody's turn".to_owned(), |o| format!("{}'s turn", shortened(&o, 20)));
        spans.push(format!("{beats} of {wanted:.2} beats a second  slot {slot}  {turn}  ").into());
    }
    let is_new = |at: &Option<ServerInstant>| match (at, board.clock) {
        (Some(at), Some(clock)) => clock.nanos_from(*at) < TROUBLE_SHOWN_NANOS,
        _ => true,
    };
    if let Some((trouble, _)) = board.trouble.as_ref().filter(|(_, at)| is_new(at)) {
        spans.push(Span::styled(shortened(trouble, 120), Style::new().fg(Color::Red)));
    }
    Line::from(spans)
}

/// The nodes in turn order around a circle, and the hand.
fn ring_canvas<'a>(
    board: &Board,
    farm: &'a Farm,
) -> Canvas<'a, impl Fn(&mut Context<'_>) + use<'a>> {
    let clock = board.clock.unwrap_or(farm.sight().look.clock);
    let slot = farm.cadence().slot_at(clock);
    let ring: Vec<NodeId> = farm.roster().version_at(slot).map_or(Vec::new(), |v| v.ring.clone());
    let owner = farm.roster().owner(slot);
    let boundary = farm.cadence().boundary(slot);
    let period = farm.cadence().period.as_nanos() as f64;
    let rank = ring.iter().position(|node| Some(*node) == farm.roster().ring_owner(slot));
    let within = clock.nanos_from(boundary) as f64 / period;
    Canvas::default().marker(Marker::Braille).x_bounds([-15.0, 15.0]).y_bounds([-12.0, 12.0]).paint(
        move |context| {
            let at = |part: f64, radius: f64| {
                let (sin, cos) = (part * std::f64::consts::TAU).sin_cos();
                (radius * sin, radius * cos)
            };
            context.draw(&Circle { x: 0.0, y: 0.0, radius: 9.0, color: Color::DarkGray });
            let of = ring.len().max(1) as f64;
            if let Some(rank) = rank {
                let (x2, y2) = at((rank as f64 + 0.5 + within.clamp(-0.5, 0.5)) / of, 8.5);
                context.draw(&Stroke { x1: 0.0, y1: 0.0, x2, y2, color: Color::Cyan });
            }
            for (rank, node) in ring.iter().enumerate() {
                let (x, y) = at((rank as f64 + 0.5) / of, 10.5);
                let is_now = Some(*node) == owner;
                let style =
                    if is_now { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
                let name = shortened(&farm.member(*node).name, 6);
                let left = name.chars().count() as f64 / 2.0;
                context.print((x - left).max(-15.0), y, Span::styled(name, style));
            }
        },
    )
}

/// A line for each node: its name, its state, and its slots, the newest to the right.
fn lane_lines(farm: &Farm, area: Rect) -> Vec<Line<'static>> {
    let width = usize::from(area.width).saturating_sub(NAME_WIDTH + 11);
    let slots: Vec<&SlotView> = farm.slots().rev().take(width).collect();
    let nodes = &farm.sight().nodes;
    let room = usize::from(area.height);
    let mut lines: Vec<Line<'static>> =
        nodes.iter().take(room).map(|node| lane(node, farm.state(node), &slots)).collect();
    if nodes.len() > room && room > 0 {
        lines.pop();
        lines.push(Line::from(format!("… and {} more", nodes.len() + 1 - room)));
    }
    lines
}

fn lane(node: &NodeView, state: &str, slots: &[&SlotView]) -> Line<'static> {
    let is_bad = matches!(state, "out" | "silent" | "lost");
    let color = if is_bad { Color::Red } else { Color::Reset };
    let mut spans = vec![Span::styled(
        format!("{:<NAME_WIDTH$} {:<8} ", shortened(&node.name, NAME_WIDTH), shortened(state, 8)),
        Style::new().fg(color),
    )];
    for slot in slots.iter().rev() {
        let (mark, color) = mark(node.id, slot);
        spans.push(Span::styled(mark.to_string(), Style::new().fg(color)));
    }
    Line::from(spans)
}

/// What a slot is to a node: a digit, the jobs claimed; `|`, an empty beat; `x`, missed; `.`, another's.
fn mark(node: NodeId, slot: &SlotView) -> (char, Color) {
    match slot.beat {
        Some(beat) if beat.node == node => {
            let digit = char::from_digit(beat.claimed.min(9), 10).unwrap_or('9');
            let mark = if beat.claimed == 0 { '|' } else { digit };
            let color = match (beat.is_off(), slot.deputy().is_some()) {
                (true, _) => Color::Yellow,
                (_, true) => Color::Magenta,
                _ => Color::Cyan,
            };
            (mark, color)
        }
        None if slot.place.is_some_and(|place| place.owner == node) => ('x', Color::Red),
        _ => ('.', Color::DarkGray),
    }
}

fn queue_lines(board: &Board) -> Paragraph<'static> {
    let block = Block::new().borders(Borders::TOP).title(" queues ");
    let Some(tally) = &board.tally else { return Paragraph::new("").block(block) };
    let mut lines = vec![Line::from(format!(
        "{} ready, {} later, {} running, {} dead",
        tally.ready(),
        tally.later(),
        tally.running,
        tally.dead
    ))];
    let mut queues: Vec<_> = tally.queues.iter().collect();
    queues.sort_by_key(|queue| std::cmp::Reverse((queue.ready.jobs, queue.later.jobs)));
    for queue in queues.into_iter().take(3) {
        let oldest = queue.oldest_us.map_or(0, |us| us / 1_000_000);
        lines.push(Line::from(format!(
            "{:<20} {:>7} ready, oldest {oldest} s, {:>7} later",
            shortened(&queue.queue, 20),
            queue.ready.to_string(),
            queue.later.to_string()
        )));
    }
    Paragraph::new(lines).block(block)
}

fn jobs_list(board: &Board, area: Rect) -> Paragraph<'static> {
    let title = match board.list {
        List::Dead => " jobs that were given up ",
        List::Retrying => " jobs to be tried again ",
        List::Running => " jobs that run ",
    };
    let block = Block::new().borders(Borders::TOP).title(title);
    let room = usize::from(area.height).saturating_sub(1);
    if board.jobs.is_empty() {
        return Paragraph::new("none").block(block);
    }
    let first = board.place().map_or(0, |place| (place + 1).saturating_sub(room));
    let lines: Vec<Line<'static>> = board
        .jobs
        .iter()
        .skip(first)
        .take(room)
        .map(|job| {
            let style = match Some(job.id) == board.chosen {
                true => Style::new().add_modifier(Modifier::REVERSED),
                false => Style::new(),
            };
            Line::styled(job_line(job), style)
        })
        .collect();
    Paragraph::new(lines).block(block)
}

fn job_line(job: &JobView) -> String {
    let status = job.last_status.map_or(String::new(), |status| status.to_string());
    format!(
        "{:<6} {:<34} {:<12} {:>3}/{:<3} {:>3} {}",
        shortened(&job.method, 6),
        shortened(&job.url, 34),
        shortened(&job.queue, 12),
        job.attempt,
        job.max_attempts,
        status,
        shortened(job.last_error.as_deref().unwrap_or_default(), 60)
    )
}

fn footline(board: &Board) -> Line<'static> {
    match (&board.asks, &board.said) {
        (Some(job), _) => Line::styled(
            format!("cancel the job {job}? y: yes, any other key: no"),
            Style::new().fg(Color::Yellow),
        ),
        (None, Some(said)) => Line::from(shortened(said, 200)),
        (None, None) => Line::styled(
            "Tab: other jobs  arrows: choose  r: run now  c: cancel  ?: help  q: leave",
            Style::new().fg(Color::DarkGray),
        ),
    }
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    const TEXT: &str = "\
The ring: nodes in turn order, the hand on the slot of now.
A lane: a node's slots, the newest to the right.
  |  a beat, nothing was due    3  a beat that claimed 3
  x  missed    magenta: for another    yellow: off its time

Tab     the jobs given up, to be tried again, that run
arrows  choose a job      r  run it now      c  cancel it
q, Esc, Ctrl-C  leave     any key  closes this";
    let (width, height) = (62.min(area.width), 11.min(area.height));
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(TEXT).block(Block::bordered().title(" help ")), place);
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use turnwise_engine::{Period, Slot, TurnRow, Version};
    use uuid::Uuid;

    use super::*;
    use crate::job::JobState;
    use crate::store::{BeatView, Capped, Look, QueueView};
    use crate::watch::Sight;

    const NAMES: [&str; 3] = ["ada", "bob\u{1b}[31m", "cyd"];

    pub(in super::super) fn job(number: u128) -> JobView {
        let at = ServerInstant::from_micros(0);
        JobView {
            id: JobId(Uuid::from_u128(number)),
            queue: "mail".to_owned(),
            method: "POST".to_owned(),
            url: format!("/jobs/send?to={number}\u{7}"),
            state: JobState::Dead,
            priority: 0,
            attempt: 20,
            max_attempts: 20,
            scheduled_at: at,
            created_at: at,
            finished_at: Some(at),
            node: None,
            last_status: Some(500),
            last_error: Some("the target answered 500".to_owned()),
            unique_key: None,
            awaits_since: None,
            progress: None,
            particulars: Default::default(),
            after: None,
        }
    }

    fn board() -> Board {
        let ids = [1, 2, 3].map(NodeId::from_u128);
        let mut row = TurnRow::new(Period::DEFAULT);
        row.roster.versions.push(Version { from: Slot(0), ring: ids.to_vec() });
        (row.slot, row.high) = (Slot(40), Slot(40));
        let beats = (10..=40).filter(|slot| *slot != 37).map(|slot| BeatView {
            slot: Slot(slot),
            node: if slot == 34 { ids[0] } else { ids[(slot % 3) as usize] },
            arrived_at: ServerInstant::from_micros(slot * 1_000_000 + 80),
            claimed: if slot % 7 == 0 { 12 } else { (slot % 4) as u32 },
        });
        let node = |(id, name): (NodeId, &str)| NodeView {
            rank: Some(0),
            epoch: 1,
            capacity: 16,
            running: 1,
            last_check_in: String::new(),
            lease_until: ServerInstant::from_micros(42_000_000),
            ..NodeView::of_a_test(id, name)
        };
        let clock = ServerInstant::from_micros(40_200_000);
        let sight = Sight {
            look: Look { row, clock, refused: 0, stale_ends: 0 },
            beats: beats.collect(),
            nodes: ids.into_iter().zip(NAMES).map(node).collect(),
            answered: Duration::ZERO,
            took: Duration::ZERO,
        };
        let count = |jobs| Capped { jobs, and_more: jobs > 999 };
        let queue = |name: &str, ready| QueueView {
            queue: name.to_owned(),
            ready: count(ready),
            later: count(3),
            oldest_us: Some(4_000_000),
        };
        Board {
            farm: Some(Arc::new(Farm::begin(&sight).0)),
            clock: Some(clock),
            tally: Some(Tally {
                queues: vec![queue("default", 2), queue("mail", 10_000)],
                all_queues: true,
                dead: count(2),
                ..Tally::default()
            }),
            jobs: vec![job(1), job(2)],
            chosen: Some(job(2).id),
            ..Board::default()
        }
    }

    fn drawn(board: &Board, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, board)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_farm_on_a_screen_of_ordinary_size() {
        insta::assert_snapshot!(drawn(&board(), 100, 26));
    }

    #[test]
    fn a_small_screen_shows_less_and_help_fits() {
        let mut board = board();
        board.help = true;
        insta::assert_snapshot!(drawn(&board, 62, 16));
    }

    #[test]
    fn every_size_is_survived() {
        let mut board = board();
        for help in [false, true] {
            board.help = help;
            for width in [1, 10, 49, 50, 79, 80, 300] {
                for height in [1, 5, 13, 14, 23, 24, 90] {
                    let text = drawn(&board, width, height);
                    assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'));
                }
            }
        }
        assert!(drawn(&board, 49, 20).contains("too small"));
        assert!(drawn(&Board::default(), 80, 24).contains("waiting for the database"));
    }
}
