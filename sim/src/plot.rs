//! Decides how a run is drawn: a lane for each node with its beats, its life and its faults, and below it how far
//! each beat was from its boundary.

use plotters::prelude::*;

use crate::report::{Picture, Seen};

const WIDTH: u32 = 1_600;
const LANE: u32 = 34;
const ERRORS: u32 = 260;
/// No more beats than this are drawn: the first ones.
const MOST: usize = 20_000;

const ACCEPTED: RGBColor = RGBColor(38, 120, 178);
const CLAIMED: RGBColor = RGBColor(52, 140, 64);
const DEPUTY: RGBColor = RGBColor(214, 139, 0);
const REFUSED: RGBColor = RGBColor(200, 40, 40);
const FAULT: RGBColor = RGBColor(120, 60, 140);

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
    let height = 80 + lanes * LANE + ERRORS;
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
    draw_errors(picture, last, &below, range)
}

/// How far each beat was from its boundary.
fn draw_errors(
    picture: &Picture,
    last: u64,
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    range: std::ops::Range<f64>,
) -> Result<(), DrawingAreaErrorKind<std::convert::Infallible>> {
    let micros = |error: i64| error as f64 / 1e3;
    let mut sizes: Vec<_> = picture
        .seen
        .iter()
        .filter_map(|(_, _, seen)| match seen {
            Seen::Beat { error, .. } => Some(error.unsigned_abs()),
            _ => None,
        })
        .collect();
    sizes.sort_unstable();
    // The few that are far out would flatten the rest.
    let most = sizes.get(sizes.len().saturating_sub(1) * 98 / 100).copied().unwrap_or(1);
    let most = micros(most.max(1_000) as i64) * 1.3;
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
