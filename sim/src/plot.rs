//! Decides how a run is drawn: a lane for each node with its beats, its life and its faults; below it how far each
//! beat was from its boundary, and how far from the truth each node believed the server's clock to be.

use plotters::prelude::*;

use crate::report::{Picture, Seen};

const WIDTH: u32 = 1_600;
const LANE: u32 = 34;
const ERRORS: u32 = 260;
const OFFSETS: u32 = 320;
/// No more beats than this are drawn: the first ones.
const MOST: usize = 20_000;

const ACCEPTED: RGBColor = RGBColor(38, 120, 178);
const CLAIMED: RGBColor = RGBColor(52, 140, 64);
const DEPUTY: RGBColor = RGBColor(214, 139, 0);
const REFUSED: RGBColor = RGBColor(200, 40, 40);
const FAULT: RGBColor = RGBColor(120, 60, 140);
/// The nodes, where they share a panel; the ninth looks as the first.
const NODES: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(214, 39, 40),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(227, 119, 194),
    RGBColor(23, 190, 207),
];

/// Draw a run as SVG.
pub fn timeline(picture: &Picture) -> String {
    let mut svg = String::new();
    // Writing into a string cannot fail; an empty picture is still a picture.
    let _ = draw(picture, &mut svg);
    svg
}

fn draw(
    picture: &Picture,
    svg: &mut String,
) -> Result<(), DrawingAreaErrorKind<std::convert::Infallible>> {
    let lanes = picture.hosts + 1;
    // Of real processes nobody knows the truth.
    let has_offsets = offsets(picture, u64::MAX).next().is_some();
    let height = 80 + lanes * LANE + ERRORS + if has_offsets { OFFSETS } else { 0 };
    let root = SVGBackend::with_string(svg, (WIDTH, height)).into_drawing_area();
    let _ = root.fill(&WHITE);
    let (above, below) = root.split_vertically(60 + lanes * LANE);
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    let (first, last) = span(picture);
    let range = seconds(first)..seconds(last).max(seconds(first) + 1.0);
    let ok = |result: Result<_, DrawingAreaErrorKind<_>>| result.ok();
    let Some(mut chart) = ok(ChartBuilder::on(&above)
        .margin(10)
        .caption("turns: blue empty, green claimed, orange deputy, red refused", ("sans-serif", 16))
        .x_label_area_size(24)
        .y_label_area_size(70)
        .build_cartesian_2d(range.clone(), 0.0..f64::from(lanes)))
    else {
        return Ok(());
    };
    let label = |lane: &f64| match *lane as u32 {
        0 => "database".to_owned(),
        lane if lane < lanes => format!("node {}", lane - 1),
        _ => String::new(),
    };
    let _ = chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(lanes as usize + 1)
        .y_label_formatter(&label)
        .x_desc("seconds")
        .draw();
    let lane = |host: u32| if host == u32::MAX { 0.5 } else { f64::from(host) + 1.5 };
    let seen = || picture.seen.iter().filter(|(at, _, _)| *at <= last);
    let _ = chart.draw_series(seen().filter_map(|(at, host, seen)| {
        let Seen::Runs { lasts, .. } = seen else { return None };
        let corners =
            [(seconds(*at), lane(*host) - 0.35), (seconds(at + lasts), lane(*host) - 0.25)];
        Some(Rectangle::new(corners, CLAIMED.mix(0.35).filled()))
    }));
    let _ = chart.draw_series(seen().filter_map(|(at, host, seen)| {
        let Seen::Fault(fault) = seen else { return None };
        let until = seconds(at + fault.lasts().0.max(50_000_000));
        let corners = [(seconds(*at), lane(*host) - 0.45), (until, lane(*host) + 0.45)];
        Some(Rectangle::new(corners, FAULT.mix(0.18).filled()))
    }));
    let _ = chart.draw_series(seen().filter_map(|(at, host, seen)| {
        let Seen::Fault(fault) = seen else { return None };
        let place = (seconds(*at), lane(*host) + 0.42);
        Some(Text::new(fault.name(), place, ("sans-serif", 11).into_font().color(&FAULT)))
    }));
    let _ = chart.draw_series(seen().filter_map(|(at, host, seen)| {
        let (name, color) = match seen {
            Seen::Up => ("up", &ACCEPTED),
            Seen::Killed => ("killed", &REFUSED),
            Seen::Left => ("left", &ACCEPTED),
            Seen::Lost => ("lost", &REFUSED),
            _ => return None,
        };
        let place = (seconds(*at), lane(*host) - 0.1);
        Some(Text::new(name, place, ("sans-serif", 11).into_font().color(color)))
    }));
    let _ = chart.draw_series(seen().filter_map(|(at, host, seen)| {
        let color = color_of(seen)?;
        Some(Circle::new((seconds(*at), lane(*host)), 3, color.filled()))
    }));
    if !has_offsets {
        return draw_errors(picture, last, &below, range);
    }
    let head = (range.end - range.start) * 0.003;
    let _ = chart.draw_series((0..picture.hosts).map(|host| {
        let (from, to) = (range.start, range.start + head);
        let corners = [(from, lane(host) - 0.45), (to, lane(host) + 0.45)];
        Rectangle::new(corners, color_of_node(host).filled())
    }));
    let (errors, offsets) = below.split_vertically(20 + ERRORS);
    draw_errors(picture, last, &errors, range.clone())?;
    draw_offsets(picture, last, &offsets, range);
    Ok(())
}

/// How far each beat was from its boundary.
fn draw_errors(
    picture: &Picture,
    last: u64,
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    range: std::ops::Range<f64>,
) -> Result<(), DrawingAreaErrorKind<std::convert::Infallible>> {
    let sizes = picture.seen.iter().filter_map(|(_, _, seen)| match seen {
        Seen::Beat { error, .. } => Some(error.unsigned_abs()),
        _ => None,
    });
    let most = reach(sizes.collect());
    let Ok(mut chart) = ChartBuilder::on(area)
        .margin(10)
        .caption("arrival: microseconds after the boundary", ("sans-serif", 16))
        .x_label_area_size(24)
        .y_label_area_size(70)
        .build_cartesian_2d(range, -most..most)
    else {
        return Ok(());
    };
    let _ = chart.configure_mesh().light_line_style(WHITE).draw();
    let _ = chart.draw_series(picture.seen.iter().filter(|(at, _, _)| *at <= last).filter_map(
        |(at, _, seen)| {
            let Seen::Beat { error, .. } = seen else { return None };
            let color = color_of(seen)?;
            let place = (*at as f64 / 1e9, micros(*error).clamp(-most, most));
            Some(Circle::new(place, 2, color.filled()))
        },
    ));
    Ok(())
}

/// How far from the truth each node believed the server's clock to be, within the bounds that it claimed.
fn draw_offsets(
    picture: &Picture,
    last: u64,
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    range: std::ops::Range<f64>,
) {
    let sizes = offsets(picture, last).map(|(_, _, error, claimed)| {
        let (low, high) = claimed.unwrap_or_default();
        error.unsigned_abs().max(low.unsigned_abs()).max(high.unsigned_abs())
    });
    let most = folded(reach(sizes.collect()));
    let truth = vec![(range.start, 0.0), (range.end, 0.0)];
    let Ok(mut chart) = ChartBuilder::on(area)
        .margin(10)
        .caption(
            "offset: microseconds between what a node believes and the truth, by powers of ten; light: the bounds \
             that it claims; in the colour at the head of its lane",
            ("sans-serif", 16),
        )
        .x_label_area_size(24)
        .y_label_area_size(70)
        .build_cartesian_2d(range, -most..most)
    else {
        return;
    };
    let label = |place: &f64| match place.abs().round() as i32 {
        0 => "0".to_owned(),
        power => format!("{:.0}", place.signum() * 10_f64.powi(power - 1)),
    };
    // No more labels than there are powers of ten: each of them stands at one.
    let labels = 2 * most as usize + 1;
    let _ = chart
        .configure_mesh()
        .light_line_style(WHITE)
        .y_labels(labels)
        .y_label_formatter(&label)
        .draw();
    let place = |error: i64| folded(micros(error)).clamp(-most, most);
    let _ = chart.draw_series(offsets(picture, last).filter_map(|(at, host, _, claimed)| {
        let (low, high) = claimed?;
        let ends = vec![(at, place(low)), (at, place(high))];
        Some(PathElement::<(f64, f64)>::new(ends, color_of_node(host).mix(0.25)))
    }));
    let truth = PathElement::<(f64, f64)>::new(truth, BLACK.mix(0.5));
    let _ = chart.draw_series(std::iter::once(truth));
    let _ = chart.draw_series(offsets(picture, last).map(|(at, host, error, _)| {
        Circle::new((at, place(error)), 2, color_of_node(host).filled())
    }));
}

/// What nodes knew of the server's clock until then: at which second, which node, how far from the truth, within which bounds.
fn offsets(
    picture: &Picture,
    last: u64,
) -> impl Iterator<Item = (f64, u32, i64, Option<(i64, i64)>)> {
    let until = picture.seen.iter().filter(move |(at, _, _)| *at <= last);
    until.filter_map(|(at, host, seen)| match seen {
        Seen::Offset { error, claimed } => Some((*at as f64 / 1e9, *host, *error, *claimed)),
        _ => None,
    })
}

/// How far a panel reaches for errors of these sizes, in microseconds: the few that are far out would flatten the rest.
fn reach(mut sizes: Vec<u64>) -> f64 {
    sizes.sort_unstable();
    let most = sizes.get(sizes.len().saturating_sub(1) * 98 / 100).copied().unwrap_or(1);
    most.max(1_000) as f64 / 1e3 * 1.3
}

fn micros(nanos: i64) -> f64 {
    nanos as f64 / 1e3
}

/// Where so many microseconds stand: even up to 1, by powers of ten beyond. What is believed is off by microseconds where
/// what is claimed is milliseconds wide, and both are to be seen.
fn folded(micros: f64) -> f64 {
    let size = micros.abs();
    if size <= 1.0 { micros } else { micros.signum() * (1.0 + size.log10()) }
}

fn color_of_node(host: u32) -> RGBColor {
    NODES[host as usize % NODES.len()]
}

fn color_of(seen: &Seen) -> Option<&'static RGBColor> {
    Some(match seen {
        Seen::Beat { accepted: false, .. } => &REFUSED,
        Seen::Beat { deputy: true, .. } => &DEPUTY,
        Seen::Beat { claimed: 1.., .. } => &CLAIMED,
        Seen::Beat { .. } => &ACCEPTED,
        _ => return None,
    })
}

/// From the first thing seen to the last that is drawn.
fn span(picture: &Picture) -> (u64, u64) {
    let first = picture.seen.first().map_or(0, |(at, _, _)| *at);
    let beats = picture.seen.iter().filter(|(_, _, seen)| matches!(seen, Seen::Beat { .. }));
    let last = beats.take(MOST).last().map_or(first, |(at, _, _)| *at);
    (first, last + picture.period)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fit;
    use crate::lab::{Original, run_with};
    use crate::scenario::{Scenario, Span};
    use crate::tier::Tier;

    const CAPTION: &str = "offset: microseconds between what a node believes and the truth";

    fn calm() -> Scenario {
        fit(Scenario::calm(3, 4, Span::from_secs(60)))
    }

    #[test]
    fn the_truth_lies_within_what_each_node_claims() {
        for tier in [Tier::Lab, Tier::Cluster] {
            let report = tier.run(&calm(), true);
            let picture = report.picture.unwrap();
            for node in 0..4 {
                let mut count = 0;
                for (at, host, error, claimed) in offsets(&picture, u64::MAX) {
                    if host == node {
                        let (low, high) = claimed.unwrap();
                        let holds = [0, error].iter().all(|from| (low..=high).contains(from));
                        assert!(holds, "{tier}, node {node} at {at}: {error} in {low}..{high}");
                        count += 1;
                    }
                }
                assert!(count > 5, "{tier}, node {node}: {count}");
            }
            assert!(timeline(&picture).contains(CAPTION));
            let unseen = tier.run(&calm(), false);
            assert_eq!(unseen.trace_hash, report.trace_hash, "{tier}: to be seen changes nothing");
        }
    }

    #[test]
    fn the_original_design_believes_and_claims_nothing() {
        let picture = run_with::<Original>(&calm(), true).picture.unwrap();
        assert!(offsets(&picture, u64::MAX).count() > 20);
        assert!(offsets(&picture, u64::MAX).all(|(_, _, _, claimed)| claimed.is_none()));
        assert!(timeline(&picture).contains(CAPTION));
    }

    #[test]
    fn where_nobody_knows_the_truth_there_is_no_panel_for_it() {
        let mut picture = Tier::Lab.run(&calm(), true).picture.unwrap();
        picture.seen.retain(|(_, _, seen)| !matches!(seen, Seen::Offset { .. }));
        let svg = timeline(&picture);
        assert!(svg.contains("arrival: microseconds") && !svg.contains(CAPTION));
    }

    #[test]
    fn small_errors_and_wide_bounds_are_both_seen() {
        for (micros, place) in [(0.0, 0.0), (0.5, 0.5), (-1.0, -1.0), (10.0, 2.0), (-1e5, -6.0)] {
            assert!((folded(micros) - place).abs() < 1e-9, "{micros}: {}", folded(micros));
        }
    }
}
