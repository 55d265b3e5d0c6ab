//! The last two minutes of the server's time, a lane for each node: beats, jobs that run, the end of the lease, deaths,
//! and steps of the clock.

use std::collections::BTreeMap;

use maud::{Markup, html};
use turnwise_engine::{NodeId, ServerInstant};

use super::{class, number, words};
use crate::rfc3339;
use crate::store::{NodeView, RunView};
use crate::watch::{Event, Farm, What};

/// How much of the past is shown, in microseconds.
pub(in super::super) const PAST_US: i64 = 120_000_000;
/// How much of the future: what leases reach into.
const FUTURE_US: i64 = 8_000_000;
/// The width of the names, and of the whole.
const NAMES: f64 = 110.0;
const WIDTH: f64 = 1_200.0;
/// The height of the axis.
const AXIS: f64 = 26.0;
/// Rows of jobs in a lane; what runs beside more than that lies in the last.
const ROWS: usize = 4;
/// A farm that is larger has narrower lanes.
const WIDE_MAX: usize = 12;
/// So many nodes have a lane.
const LANES_MAX: usize = 60;

/// A drawing's measures.
struct Frame {
    now: ServerInstant,
    lane: f64,
}

impl Frame {
    fn x(&self, at: ServerInstant) -> f64 {
        let from = self.now.as_micros() - PAST_US;
        let part = at.as_micros().saturating_sub(from) as f64 / (PAST_US + FUTURE_US) as f64;
        NAMES + part.clamp(-0.01, 1.01) * (WIDTH - NAMES)
    }

    fn shows(&self, at: ServerInstant) -> bool {
        let age = self.now.as_micros().saturating_sub(at.as_micros());
        (-FUTURE_US..=PAST_US).contains(&age)
    }

    fn y(&self, lane: usize) -> f64 {
        AXIS + lane as f64 * self.lane
    }
}

/// The whole drawing, as of `now`.
pub(in super::super) fn draw(farm: &Farm, runs: &[RunView], now: ServerInstant) -> Markup {
    let nodes: Vec<&NodeView> =
        farm.sight().nodes.iter().filter(|node| is_shown(node, now)).take(LANES_MAX).collect();
    let lane = match nodes.len() {
        0..=4 => 64.0,
        5..=WIDE_MAX => 46.0,
        _ => 22.0,
    };
    let frame = Frame { now, lane };
    let lanes: BTreeMap<NodeId, usize> =
        nodes.iter().enumerate().map(|(lane, node)| (node.id, lane)).collect();
    let height = frame.y(nodes.len()) + 8.0;
    html! {
        svg .timeline viewBox=(format!("0 0 {WIDTH} {}", number(height))) role="img" aria-labelledby="timeline-words" {
            (axis(&frame, height))
            @for (lane, node) in nodes.iter().enumerate() { (lane_of(&frame, lane, node, farm.state(node))) }
            @for (node, row, run) in rows(runs, &lanes) { (bar(&frame, lanes[&node], row, run)) }
            @for slot in farm.slots() {
                @let who = slot.beat.map(|beat| beat.node).or_else(|| Some(slot.place?.owner));
                @if let Some(lane) = who.and_then(|who| lanes.get(&who))
                    && frame.shows(slot.boundary)
                {
                    @let at = slot.beat.map_or(slot.boundary, |beat| beat.arrived_at);
                    path class=(format!("beat {}", class(slot)))
                        d=(beat(frame.x(at), frame.y(*lane), slot.beat.is_none())) {
                        title { (words(farm, slot)) }
                    }
                }
            }
            @for event in farm.news() { (mark(&frame, event, &lanes, height)) }
            path .now d=(format!("M{} {}V{}", number(frame.x(now)), number(AXIS - 6.0), number(height))) {}
        }
    }
}

/// How many nodes have no lane; none where all have one.
pub(in super::super) fn left_out(farm: &Farm, now: ServerInstant) -> Option<usize> {
    let nodes = farm.sight().nodes.iter().filter(|node| is_shown(node, now)).count();
    nodes.checked_sub(LANES_MAX).filter(|more| *more > 0)
}

/// Those that take turns, and those that went while they are still in the picture.
fn is_shown(node: &NodeView, now: ServerInstant) -> bool {
    let seen = rfc3339::parse(&node.last_check_in);
    let age = seen.map_or(i64::MAX, |seen| now.as_micros().saturating_sub(seen.as_micros()));
    node.rank.is_some() || age < PAST_US
}

fn axis(frame: &Frame, height: f64) -> Markup {
    const STEP_US: i64 = 10_000_000;
    let first = (frame.now.as_micros() - PAST_US).div_euclid(STEP_US) + 1;
    let steps = (0..=PAST_US / STEP_US)
        .map(|step| ServerInstant::from_micros((first + step) * STEP_US))
        .filter(|at| frame.shows(*at));
    html! {
        @for at in steps {
            @let x = number(frame.x(at));
            path .grid d=(format!("M{x} {}V{}", number(AXIS - 4.0), number(height))) {}
            @if at.as_micros().rem_euclid(2 * STEP_US) == 0 && frame.x(at) < WIDTH - 30.0 {
                text .time x=(x) y="13" { (rfc3339::format(at).get(11..19).unwrap_or_default()) }
            }
        }
    }
}

fn lane_of(frame: &Frame, lane: usize, node: &NodeView, state: &str) -> Markup {
    let (y, x) = (frame.y(lane), frame.x(node.lease_until));
    let is_gone = matches!(state, "left" | "lost");
    html! {
        path .lane d=(format!("M0 {y}H{WIDTH}", y = number(y + frame.lane))) {}
        text .name data-state=(state) x="8" y=(number(y + frame.lane / 2.0 + 4.0)) {
            (super::super::page::short(&node.name, 14))
            title { (node.name) ": " (state) }
        }
        @if !is_gone && frame.shows(node.lease_until) {
            path .lease d=(format!(
                "M{x} {y0}v{h}m0 {half}h-5",
                x = number(x), y0 = number(y + 5.0), h = number(frame.lane - 10.0),
                half = number(-(frame.lane - 10.0) / 2.0))) {
                title { "the lease of " (node.name) " ends" }
            }
        }
    }
}

/// The path of a beat, or of the cross of a slot without one.
fn beat(x: f64, y: f64, is_missed: bool) -> String {
    match is_missed {
        false => format!("M{} {}v9", number(x), number(y + 5.0)),
        true => format!("M{} {}l7 7m0-7l-7 7", number(x - 3.5), number(y + 6.0)),
    }
}

/// The runs, each with its node and its row in the lane: the first that is free when it begins.
fn rows<'a>(
    runs: &'a [RunView],
    lanes: &BTreeMap<NodeId, usize>,
) -> Vec<(NodeId, usize, &'a RunView)> {
    let mut runs: Vec<&RunView> = runs.iter().filter(|run| lanes.contains_key(&run.node)).collect();
    runs.sort_by_key(|run| (run.started_at, run.job));
    let mut busy: BTreeMap<NodeId, [i64; ROWS]> = BTreeMap::new();
    let place = |run: &'a RunView| {
        let until = busy.entry(run.node).or_insert([i64::MIN; ROWS]);
        let start = run.started_at.as_micros();
        let row = until.iter().position(|until| *until <= start).unwrap_or(ROWS - 1);
        let end = run.finished_at.map_or(i64::MAX, ServerInstant::as_micros);
        until[row] = until[row].max(end);
        (run.node, row, run)
    };
    runs.into_iter().map(place).collect()
}

fn bar(frame: &Frame, lane: usize, row: usize, run: &RunView) -> Markup {
    let end = run.finished_at.unwrap_or(frame.now);
    if !frame.shows(end) {
        return html! {};
    }
    let (from, to) = (frame.x(run.started_at), frame.x(end));
    let top = if frame.lane > 30.0 { 17.0 } else { 11.0 };
    let height = (frame.lane - top - 4.0) / ROWS as f64;
    let state = match (run.finished_at, run.failed) {
        (None, _) => "runs",
        (Some(_), true) => "failed",
        (Some(_), false) => "done",
    };
    html! {
        rect class=(format!("run {state}")) x=(number(from)) width=(number((to - from).max(1.5)))
            y=(number(frame.y(lane) + top + row as f64 * height)) height=(number(height - 1.0)) {
            title { (run.queue) " " (run.url) ", attempt " (run.attempt) ": " (state) }
        }
    }
}

/// What happened to a node, in its lane; what happened to all, across them.
fn mark(frame: &Frame, event: &Event, lanes: &BTreeMap<NodeId, usize>, height: f64) -> Markup {
    let at = event.at.as_deref().and_then(rfc3339::parse).filter(|at| frame.shows(*at));
    let Some(x) = at.map(|at| frame.x(at)) else { return html! {} };
    let lane = |node| lanes.get(node).map(|lane| frame.y(*lane) + frame.lane / 2.0);
    let (y, kind) = match &event.what {
        What::Died { who } | What::Silent { who } => (lane(&who.node), "death"),
        What::Left { who } => (lane(&who.node), "left"),
        What::Came { who, .. } | What::Returned { who } => (lane(&who.node), "came"),
        What::ClockStepped { .. } | What::Period { .. } | What::Ring { .. } => {
            let class = if matches!(event.what, What::Ring { .. }) { "change" } else { "step" };
            return html! {
                path class=(format!("mark {class}")) d=(format!("M{} {}V{}", number(x), number(AXIS - 6.0), number(height))) {
                    title { (event.what.words()) }
                }
            };
        }
        _ => return html! {},
    };
    let Some(y) = y else { return html! {} };
    let path = match kind {
        "death" => format!("M{} {}l12 12m0-12l-12 12", number(x - 6.0), number(y - 6.0)),
        "left" => format!("M{} {}h10l-4-4m4 4l-4 4", number(x - 10.0), number(y)),
        _ => format!("M{} {}l5 5l-5 5l-5-5Z", number(x), number(y - 5.0)),
    };
    html! { path class=(format!("mark {kind}")) d=(path) { title { (event.what.words()) } } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobId;

    fn run(node: u128, start: i64, end: Option<i64>) -> RunView {
        RunView {
            job: JobId::generate(),
            queue: "q".to_owned(),
            url: "/".to_owned(),
            node: NodeId::from_u128(node),
            attempt: 1,
            started_at: ServerInstant::from_micros(start),
            finished_at: end.map(ServerInstant::from_micros),
            failed: false,
        }
    }

    #[test]
    fn runs_at_once_lie_beside_each_other() {
        let lanes = BTreeMap::from([(NodeId::from_u128(1), 0)]);
        let runs = [
            run(1, 5, Some(9)),
            run(1, 0, None),
            run(1, 6, Some(7)),
            run(1, 9, None),
            run(2, 0, None),
        ];
        let rows: Vec<_> = rows(&runs, &lanes).iter().map(|(_, row, _)| *row).collect();
        assert_eq!(rows, [0, 1, 2, 1], "and those of nodes without a lane are left out");
        let many: Vec<_> = (0..9).map(|n| run(1, n, None)).collect();
        assert!(super::rows(&many, &lanes).iter().all(|(_, row, _)| *row < ROWS));
    }

    #[test]
    fn far_away_times_stay_at_the_edge() {
        let frame = Frame { now: ServerInstant::from_micros(0), lane: 46.0 };
        assert!(frame.x(ServerInstant::from_nanos(i64::MIN)) > 90.0);
        assert!(frame.x(ServerInstant::from_nanos(i64::MAX)) < WIDTH + 20.0);
        assert!(!frame.shows(ServerInstant::from_nanos(i64::MIN)));
    }
}
