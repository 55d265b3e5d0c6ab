//! How close to its boundary a beat arrives: all estimators beside the oracle and the channel's own noise, on the same
//! traces, as a table and as a plot.
#![allow(missing_docs)]

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;
use turnwise_benches::target_folder;
use turnwise_sim::clock::judging::{Case, Verdict, judge_all, tuning};

/// The kinds of trace that are shown; of each there is a short, a middle and a long road.
const KINDS: [&str; 4] = ["plain", "commit", "routes", "congestion"];

fn main() -> Result<(), Box<dyn Error>> {
    // `cargo test` runs benches too, to see that they start.
    if std::env::args().any(|argument| argument == "--test") {
        return Ok(());
    }
    let cases: Vec<Case> = tuning(0)
        .into_iter()
        .filter(|case| KINDS.contains(&case.kind) && case.spec.interval.as_secs() <= 10)
        .collect();
    let verdicts = judge_all(&cases);
    print_table(&verdicts);
    let path = target_folder().join("slot_accuracy.svg");
    plot(&verdicts, &path)?;
    println!("plotted in {}", path.display());
    Ok(())
}

fn print_table(verdicts: &[Verdict]) {
    println!("arrival error in us: p50, p99, max");
    for Verdict { case, scores, floor } in verdicts {
        let Case { kind, spec } = case;
        println!(
            "\n{kind}, rtt {:?}, every {:?}; the channel's noise {floor:.1}",
            spec.rtt, spec.interval
        );
        let oracle = scores.last().map_or(f64::NAN, |score| score.arrival.p50);
        for score in scores {
            let arrival = score.arrival;
            println!(
                "  {:<12}{:>12.1}{:>12.1}{:>12.1}   {:.2} x oracle, {:.2} x noise",
                score.name,
                arrival.p50,
                arrival.p99,
                arrival.max,
                arrival.p50 / oracle,
                arrival.p50 / floor
            );
        }
    }
}

/// The median of each estimator, in units of the oracle's, from trace to trace, kind by kind.
fn plot(verdicts: &[Verdict], path: &Path) -> Result<(), Box<dyn Error>> {
    const COLOURS: [RGBColor; 6] = [
        RGBColor(0xd0, 0x20, 0x20),
        RGBColor(0x90, 0x90, 0x90),
        RGBColor(0x20, 0x60, 0xd0),
        RGBColor(0xe0, 0x90, 0x10),
        RGBColor(0x80, 0x40, 0xb0),
        RGBColor(0x10, 0x10, 0x10),
    ];
    let mut verdicts: Vec<&Verdict> = verdicts.iter().collect();
    verdicts.sort_by_key(|verdict| KINDS.iter().position(|kind| *kind == verdict.case.kind));
    let median = |verdict: &Verdict, place: usize| {
        verdict.scores.get(place).map_or(f64::NAN, |score| score.arrival.p50)
    };
    let ratio = |verdict: &Verdict, place: usize| {
        median(verdict, place) / median(verdict, verdict.scores.len() - 1)
    };
    let places = verdicts.first().map_or(0, |verdict| verdict.scores.len());
    let most = (0..places)
        .flat_map(|place| verdicts.iter().map(move |verdict| ratio(verdict, place)))
        .fold(2.0, f64::max);
    let root = SVGBackend::new(path, (1_400, 640)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("median arrival error, in units of the oracle's", ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(30)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..verdicts.len() as f64, (0.5..most * 1.2).log_scale())?;
    let name = |x: &f64| {
        // Once for each trace, in its middle.
        let named = verdicts.get(*x as usize).filter(|_| x.fract() > 0.25);
        named.map_or_else(String::new, |verdict| {
            let spec = &verdict.case.spec;
            format!("{:?}/{:?}", spec.rtt, spec.interval)
        })
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(2 * verdicts.len() + 1)
        .x_label_style(("sans-serif", 10))
        .x_label_formatter(&name)
        .draw()?;
    for (place, colour) in (0..places).zip(COLOURS) {
        let points = verdicts
            .iter()
            .enumerate()
            .map(|(number, verdict)| (number as f64 + 0.5, ratio(verdict, place)));
        let name =
            verdicts.first().and_then(|v| v.scores.get(place)).map_or("", |score| score.name);
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 12, y + 4)], colour.filled()));
        chart.draw_series(points.map(|point| Circle::new(point, 3, colour.filled())))?;
    }
    for kind in KINDS {
        let first = verdicts.iter().position(|verdict| verdict.case.kind == kind).unwrap_or(0);
        let place = (first as f64 + 0.1, 0.62);
        let name = Text::new(format!("{kind}:"), place, ("sans-serif", 14));
        chart.draw_series(std::iter::once(name))?;
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}
