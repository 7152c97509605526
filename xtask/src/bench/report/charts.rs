//! Plots: bars for what candidates did at a row, lines for what packets cost as flows grow.

use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::*;
use plotters::style::FontTransform;

use super::super::measurement::{Measurement, Section, Summary, Unit};
use super::super::names::quantity;
use super::super::packet_rows;
use super::tables::number;

const WIDTH: u32 = 520;
/// Of a bar with what is around it.
const BAR: i32 = 24;
/// Room for a candidate's name.
const NAMES: i32 = 210;
/// Room for a figure behind a bar.
const FIGURES: i32 = 90;
const TITLE: i32 = 34;
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 96, 30),
    RGBColor(44, 140, 60),
    RGBColor(150, 60, 170),
    RGBColor(120, 90, 60),
    RGBColor(90, 90, 90),
];

/// All plots of a section, as SVG.
pub(super) fn of_section(section: Section, measurements: &[Measurement]) -> Result<Vec<String>> {
    let of_section: Vec<&Measurement> = measurements
        .iter()
        .filter(|measurement| measurement.key.section == section)
        .collect();
    let mut charts = Vec::new();
    if section == Section::Packet {
        for (title, series) in as_flows_grow(&of_section) {
            charts.push(lines(&title, &series).with_context(|| format!("drawing {title}"))?);
        }
    }
    let mut rows: Vec<&str> = of_section.iter().map(|of| of.key.row.as_str()).collect();
    rows.dedup();
    for row in rows {
        let Some(chief) = chief(row, &of_section) else {
            continue;
        };
        let bars: Vec<(&str, Summary)> = of_section
            .iter()
            .filter(|of| of.key.row == row && of.key.quantity == chief.key.quantity)
            .map(|of| (of.key.candidate.as_str(), of.summary()))
            .collect();
        if bars.len() < 2 {
            continue;
        }
        let title = match chief.unit {
            Unit::Count => format!("{row}: {}", chief.key.quantity),
            unit => format!("{row}: {}, {unit}", chief.key.quantity),
        };
        charts.push(self::bars(&title, &bars).with_context(|| format!("drawing {title}"))?);
    }
    Ok(charts)
}

/// What a row is about: at a rate that is given, not the requests.
fn chief<'a>(row: &str, of_section: &[&'a Measurement]) -> Option<&'a Measurement> {
    let of_row = || of_section.iter().filter(|of| of.key.row == row).copied();
    let named = |quantity: &str| of_row().find(|of| of.key.quantity == quantity);
    let about = if row.ends_with("% of the most") {
        named(quantity::P99)
    } else if row.ends_with("fixed rate") {
        named(quantity::MACHINE_CPU)
    } else {
        None
    };
    about.or_else(|| of_row().next())
}

type Series<'a> = Vec<(&'a str, Vec<(f64, f64)>)>;

/// By kind of packet: for each candidate the median over the number of flows, where there are several numbers.
fn as_flows_grow<'a>(of_section: &[&'a Measurement]) -> Vec<(String, Series<'a>)> {
    let sizes = [1, packet_rows::MANY, packet_rows::MOST, packet_rows::HUGE];
    let mut charts = Vec::new();
    for family in ["IPv4", "IPv6"] {
        for protocol in ["TCP", "UDP"] {
            for what in [packet_rows::ESTABLISHED, packet_rows::REPLY] {
                let mut series: Series<'a> = Vec::new();
                for size in sizes {
                    let row = packet_rows::row(family, protocol, what, size);
                    let of_row = of_section.iter().filter(|of| {
                        of.key.row == row
                            && of.key.quantity == quantity::TIME
                            && !of.key.candidate.contains(',')
                    });
                    for measurement in of_row {
                        let point = (f64::from(size), measurement.summary().median);
                        let candidate = measurement.key.candidate.as_str();
                        match series.iter_mut().find(|(known, _)| *known == candidate) {
                            Some((_, points)) => points.push(point),
                            None => series.push((candidate, vec![point])),
                        }
                    }
                }
                series.retain(|(_, points)| points.len() > 1);
                if !series.is_empty() {
                    charts.push((format!("{family}, {protocol}, {what}: ns as flows grow"), series));
                }
            }
        }
    }
    charts
}

/// A bar for each candidate, its length the median, with a line from quartile to quartile.
fn bars(title: &str, bars: &[(&str, Summary)]) -> Result<String> {
    let mut svg = String::new();
    let height = TITLE + BAR * bars.len() as i32 + 8;
    let greatest = bars
        .iter()
        .map(|(_, summary)| summary.quartiles[1].max(summary.median))
        .fold(f64::MIN_POSITIVE, f64::max);
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height as u32)).into_drawing_area();
        let room = f64::from(WIDTH as i32 - NAMES - FIGURES);
        let at = |value: f64| NAMES + (value.max(0.0) / greatest * room) as i32;
        area.draw(&Text::new(title.to_owned(), (4, 8), ("sans-serif", 14)))
            .map_err(refused)?;
        for (number_of, (name, summary)) in bars.iter().enumerate() {
            let top = TITLE + BAR * number_of as i32;
            let colour = COLOURS[number_of % COLOURS.len()];
            let [lower, upper] = summary.quartiles;
            area.draw(&Text::new((*name).to_owned(), (4, top + 2), ("sans-serif", 13)))
                .map_err(refused)?;
            let bar = [(NAMES, top), (at(summary.median), top + BAR - 6)];
            area.draw(&Rectangle::new(bar, colour.mix(0.75).filled()))
                .map_err(refused)?;
            let middle = top + (BAR - 6) / 2;
            area.draw(&PathElement::new(
                [(at(lower), middle), (at(upper), middle)],
                BLACK,
            ))
            .map_err(refused)?;
            let right = at(upper.max(summary.median)) + 6;
            area.draw(&Text::new(
                number(summary.median),
                (right, top + 2),
                ("sans-serif", 13),
            ))
            .map_err(refused)?;
        }
        area.present().map_err(refused)?;
    }
    Ok(svg)
}

/// A line for each candidate, over the number of flows.
fn lines(title: &str, series: &Series<'_>) -> Result<String> {
    let mut svg = String::new();
    let points = || series.iter().flat_map(|(_, points)| points);
    let highest = points().map(|(_, ns)| *ns).fold(1.0, f64::max) * 1.1;
    let most = points().map(|(flows, _)| *flows).fold(1.0, f64::max);
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, 300)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 14))
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(44)
            .build_cartesian_2d((1.0..most * 1.5).log_scale(), 0.0..highest)
            .map_err(refused)?;
        let label = TextStyle::from(("sans-serif", 12)).transform(FontTransform::None);
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_labels(8)
            .x_desc("flows")
            .y_desc("ns")
            .x_label_style(label.clone())
            .y_label_style(label)
            .draw()
            .map_err(refused)?;
        for (number_of, (name, points)) in series.iter().enumerate() {
            let colour = COLOURS[number_of % COLOURS.len()];
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(3))
                .map_err(refused)?
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .draw()
            .map_err(refused)?;
        area.present().map_err(refused)?;
    }
    Ok(svg)
}

/// The error of drawing borrows what is drawn on.
fn refused(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
}
