//! The ring. A sector is a slot, as wide as the period, and belongs to a node; the line in it is its beat, at the
//! instant when it arrived: in the middle when it was on time. The newest lies outermost, so that a ring that
//! closes is seen to close. A hand goes round with the server's clock.

use std::f64::consts::TAU;

use maud::{Markup, html};
use turnwise_engine::{NodeId, ServerInstant, Slot};

use super::{class, number, words};
use crate::watch::{Farm, SlotView};

/// Where the newest slots end.
const OUTER: f64 = 150.0;
/// Where the oldest begin; within is room for words.
const INNER: f64 = 62.0;
/// Between one slot and the next.
const GAP: f64 = 2.0;
/// Where the names stand.
const NAMES: f64 = 166.0;
/// Directions in which heights are kept.
const DIRECTIONS: usize = 720;
/// Of a ring that is larger, less of the past is drawn.
const SMALL_MAX: usize = 16;
/// Names of a ring that is larger are not written around it; they stand in the list.
const NAMED_MAX: usize = 28;

/// A slot with its place in the drawing.
struct Sector<'a> {
    slot: &'a SlotView,
    /// Where it begins and ends, as parts of a turn from the top.
    from: f64,
    to: f64,
    /// How many slots lie outside of it.
    level: usize,
}

/// The whole drawing, with the hand at `clock`.
pub(in super::super) fn draw(farm: &Farm, clock: ServerInstant) -> Markup {
    let slot = farm.cadence().slot_at(clock);
    let version = farm.roster().version_at(slot);
    let ring: &[NodeId] = version.map_or(&[], |version| &version.ring);
    let from = version.map_or(slot, |version| version.from);
    let (zero_us, period_us) =
        (farm.cadence().boundary(from).as_micros(), farm.cadence().period.as_nanos() / 1_000);
    let hand = hand(clock.as_micros(), zero_us, period_us, ring.len());
    let levels = if ring.len() <= SMALL_MAX { 8 } else { 4 };
    let sectors = sectors(farm, levels);
    let thickness = (OUTER - INNER) / levels as f64;
    let owner = farm.roster().owner(slot);
    html! {
        svg .ring viewBox="-200 -178 400 356" role="img" aria-labelledby="ring-words"
            data-clock=(clock.as_micros()) data-zero=(zero_us) data-period=(period_us) data-of=(ring.len()) {
            circle .track r=(number(OUTER + 4.0)) {}
            @for (number, sector) in sectors.iter().enumerate() {
                (drawn(farm, sector, thickness, number == 0))
            }
            path .beats d=(beat_lines(&sectors, thickness)) {}
            @for sector in &sectors { (claimed(sector, thickness)) }
            @if ring.len() <= NAMED_MAX {
                @for (rank, node) in ring.iter().enumerate() {
                    (name(farm, *node, rank, ring.len(), owner == Some(*node)))
                }
            }
            @if !ring.is_empty() {
                g #hand .hand transform=(format!("rotate({})", number(hand * 360.0))) {
                    path d="M0-58V-153M-4.5-160L0-152L4.5-160Z" {}
                }
            }
            (middle(farm, slot))
        }
    }
}

/// The words in the middle: how many beats there are, and how many there should be.
fn middle(farm: &Farm, slot: Slot) -> Markup {
    let wanted = 1e9 / farm.cadence().period.as_nanos() as f64;
    let beats = farm.beats_a_second();
    let owner = farm.roster().owner(slot).map(|owner| farm.member(owner).name);
    html! {
        g .middle {
            text .figure y="-6" { (beats.map_or("–".to_owned(), |beats| format!("{beats:.2}"))) }
            text y="12" { (format!("of {wanted:.2} beats a second")) }
            @if let Some(owner) = owner {
                text .turn y="32" { (super::super::page::short(&owner, 14)) "’s turn" }
            } @else {
                text .turn y="32" { "nobody’s turn" }
            }
        }
    }
}

/// Where the hand points, as a part of a turn: it is in the middle of a slot at the slot's boundary.
fn hand(clock_us: i64, zero_us: i64, period_us: i64, of: usize) -> f64 {
    let of = of.max(1) as i64;
    let round_us = period_us * of;
    let within = (clock_us - zero_us + period_us / 2).rem_euclid(round_us.max(1));
    within as f64 / round_us.max(1) as f64
}

/// The slots, each in its direction, outside of all that are older. Slots of an earlier ring keep the width that they
/// had in it.
fn sectors(farm: &Farm, levels: usize) -> Vec<Sector<'_>> {
    let mut heights = [0_usize; DIRECTIONS];
    let mut sectors = Vec::new();
    for slot in farm.slots().rev() {
        if heights.iter().all(|height| *height >= levels) {
            break;
        }
        let Some(place) = slot.place else { continue };
        let of = place.of as f64;
        let (from, to) = (place.rank as f64 / of, (place.rank + 1) as f64 / of);
        let bin = |part: f64| ((part * DIRECTIONS as f64).round() as usize).min(DIRECTIONS);
        let under = &mut heights[bin(from)..bin(to)];
        let level = under.iter().copied().max().unwrap_or(0);
        under.fill(level + 1);
        if level < levels {
            sectors.push(Sector { slot, from, to, level });
        }
    }
    sectors
}

fn drawn(farm: &Farm, sector: &Sector<'_>, thickness: f64, is_newest: bool) -> Markup {
    let (outer, inner) = radii(sector.level, thickness);
    let newest = if is_newest { " newest" } else { "" };
    let class = format!("slot {} age-{}{newest}", class(sector.slot), sector.level);
    let is_large = sector.to - sector.from > 1.0 / (SMALL_MAX as f64 + 1.0);
    html! {
        path class=(class) data-slot=(sector.slot.slot.0) d=(band(sector.from, sector.to, outer, inner)) {
            @if is_large || sector.level == 0 { title { (words(farm, sector.slot)) } }
        }
    }
}

/// How many jobs a beat claimed, written beside its line where there is room.
fn claimed(sector: &Sector<'_>, thickness: f64) -> Markup {
    let claimed = sector.slot.beat.map_or(0, |beat| beat.claimed);
    let (outer, inner) = radii(sector.level, thickness);
    let width = (sector.to - sector.from) * TAU * inner;
    if claimed == 0 || sector.level > 3 || width < 34.0 {
        return html! {};
    }
    let middle = f64::midpoint(sector.from, sector.to);
    let (x, y) = at(middle + 11.0 / (TAU * outer), f64::midpoint(outer, inner));
    html! { text .claimed x=(number(x)) y=(number(y)) { (claimed) } }
}

/// The lines of all beats, each where it arrived within its slot.
fn beat_lines(sectors: &[Sector<'_>], thickness: f64) -> String {
    let mut path = String::new();
    for sector in sectors {
        let Some(beat) = sector.slot.beat else { continue };
        let late = beat.late_us.unwrap_or(0) as f64 / beat.period_us.max(1) as f64;
        let part = sector.from + (sector.to - sector.from) * (0.5 + late.clamp(-0.48, 0.48));
        let (outer, inner) = radii(sector.level, thickness);
        let ((x0, y0), (x1, y1)) = (at(part, outer), at(part, inner));
        path.push_str(&format!("M{} {}L{} {}", number(x0), number(y0), number(x1), number(y1)));
    }
    path
}

fn name(farm: &Farm, node: NodeId, rank: usize, of: usize, is_now: bool) -> Markup {
    let part = (rank as f64 + 0.5) / of as f64;
    let (x, y) = at(part, NAMES);
    let anchor = match part {
        0.04..0.46 => "start",
        0.54..0.96 => "end",
        _ => "middle",
    };
    let view = farm.sight().nodes.iter().find(|view| view.id == node);
    let state = view.map_or("unknown", |view| farm.state(view));
    let length = if of <= 8 { 16 } else { 9 };
    html! {
        text .name .now[is_now] data-state=(state) x=(number(x)) y=(number(y + 4.0)) text-anchor=(anchor) {
            (super::super::page::short(&farm.member(node).name, length))
        }
    }
}

fn radii(level: usize, thickness: f64) -> (f64, f64) {
    let outer = OUTER - level as f64 * thickness;
    (outer, outer - thickness + GAP)
}

/// A point: a part of a turn from the top, clockwise, and a distance from the middle.
fn at(part: f64, radius: f64) -> (f64, f64) {
    let (sin, cos) = (part * TAU).sin_cos();
    (radius * sin, -radius * cos)
}

/// The outline of a piece of a ring, with half a gap left out at both ends.
fn band(from: f64, to: f64, outer: f64, inner: f64) -> String {
    let gap = |radius: f64| (GAP / 2.0 / (TAU * radius)).min((to - from) / 4.0);
    let is_whole = to - from > 0.999;
    let (go, gi) = if is_whole { (0.0005, 0.0005) } else { (gap(outer), gap(inner)) };
    let large = u8::from(to - from - 2.0 * go > 0.5);
    let point = |part, radius| {
        let (x, y) = at(part, radius);
        format!("{} {}", number(x), number(y))
    };
    let (ro, ri) = (number(outer), number(inner));
    format!(
        "M{}A{ro} {ro} 0 {large} 1 {}L{}A{ri} {ri} 0 {large} 0 {}Z",
        point(from + go, outer),
        point(to - go, outer),
        point(to - gi, inner),
        point(from + gi, inner),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hand_is_in_the_middle_of_a_slot_at_its_boundary() {
        let second = 1_000_000;
        assert!((hand(0, 0, second, 4) - 0.125).abs() < 1e-9);
        assert!((hand(5 * second, 0, second, 4) - 0.375).abs() < 1e-9);
        assert!((hand(-second, 0, second, 4) - 0.875).abs() < 1e-9);
        assert!((0.0..1.0).contains(&hand(7, 3, 0, 0)));
    }

    #[test]
    fn a_band_goes_clockwise_from_the_top() {
        assert_eq!(at(0.0, 10.0), (0.0, -10.0));
        let (x, y) = at(0.25, 10.0);
        assert!((x - 10.0).abs() < 1e-9 && y.abs() < 1e-9);
        assert!(band(0.0, 1.0, 150.0, 140.0).contains("A150 150 0 1 1"));
        assert!(band(0.0, 0.25, 150.0, 140.0).starts_with("M1 -150A150 150 0 0 1"));
    }
}
