//! What plots have in common: colours, markers, ticks and numbers.
//!
//! Plots are drawn twice as large as they are shown, because plotters places everything on whole pixels.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, KeyPointWeight, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::style::RGBColor;

/// Drawn pixels in one pixel of the page.
pub(super) const SCALE: u32 = 2;
/// Letters of plots, in drawn pixels; plotters makes them a fifth smaller than it is told.
pub(super) const TEXT: u32 = 16 * SCALE;
pub(super) const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
pub(super) const GRID: RGBColor = RGBColor(0xE4, 0xE4, 0xE4);

/// The colours of Okabe and Ito, which readers with any colour vision tell apart; the style sheet knows each by its value.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0x56, 0xB4, 0xE9),
    RGBColor(0x77, 0x77, 0x77),
];

/// How a line or a bar looks: its colour, and a marker for who sees no colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    colour: usize,
    pub(super) shape: Shape,
}

/// A marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Circle,
    Triangle,
    Square,
    Cross,
    /// A level line without markers.
    Dashes,
    /// A bar.
    Bar,
}

impl Mark {
    /// That of the line number `number`; 28 differ.
    pub(super) fn line(number: usize) -> Self {
        const SHAPES: [Shape; 4] = [Shape::Circle, Shape::Triangle, Shape::Square, Shape::Cross];
        Self { colour: number % COLOURS.len(), shape: SHAPES[number % SHAPES.len()] }
    }

    /// That of the level line number `number`.
    pub(super) fn level(number: usize) -> Self {
        Self { colour: COLOURS.len() - 1 - number % COLOURS.len(), shape: Shape::Dashes }
    }

    /// That of the bars of kind `number`.
    pub(super) fn bar(number: usize) -> Self {
        Self { colour: number % COLOURS.len(), shape: Shape::Bar }
    }

    /// The grey one.
    pub(super) fn grey_bar() -> Self {
        Self { colour: COLOURS.len() - 1, shape: Shape::Bar }
    }

    pub(super) fn colour(self) -> RGBColor {
        COLOURS[self.colour]
    }

    /// A sample of it for a legend.
    pub(super) fn key(self) -> String {
        let RGBColor(r, g, b) = self.colour();
        let colour = format!("#{r:02X}{g:02X}{b:02X}");
        let line = |dashes: &str| {
            format!("<line x1=\"1\" y1=\"7\" x2=\"27\" y2=\"7\" stroke=\"{colour}\" stroke-width=\"2\"{dashes}/>")
        };
        let inside = match self.shape {
            Shape::Circle => format!("{}<circle cx=\"14\" cy=\"7\" r=\"4\" fill=\"{colour}\"/>", line("")),
            Shape::Triangle => format!("{}<path d=\"M14 2 19 11H9Z\" fill=\"{colour}\"/>", line("")),
            Shape::Square => {
                format!("{}<rect x=\"10\" y=\"3\" width=\"8\" height=\"8\" fill=\"{colour}\"/>", line(""))
            }
            Shape::Cross => {
                format!("{}<path d=\"M10 3 18 11M18 3 10 11\" stroke=\"{colour}\" stroke-width=\"2\"/>", line(""))
            }
            Shape::Dashes => line(" stroke-dasharray=\"6 4\""),
            Shape::Bar => format!("<rect x=\"7\" y=\"1\" width=\"14\" height=\"12\" fill=\"{colour}\"/>"),
        };
        format!("<svg class=\"key\" width=\"28\" height=\"14\" aria-hidden=\"true\">{inside}</svg>")
    }
}

/// An axis whose ticks and their texts are chosen here, not by plotters.
pub(super) struct Axis {
    pub(super) range: Range<f64>,
    /// Places and what is written at them.
    pub(super) ticks: Vec<(f64, String)>,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        start + (f64::from(end - start) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match hint.weight() {
            KeyPointWeight::Bold => self.ticks.iter().map(|(place, _)| *place).collect(),
            KeyPointWeight::Any => Vec::new(),
        }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

impl ValueFormatter<f64> for Axis {
    fn format(value: &f64) -> String {
        value.to_string()
    }

    fn format_ext(&self, value: &f64) -> String {
        let away = |(place, _): &&(f64, String)| (place - value).abs();
        let nearest = self.ticks.iter().min_by(|a, b| away(a).total_cmp(&away(b)));
        nearest.map_or_else(String::new, |(_, text)| text.clone())
    }
}

/// Round ticks with their texts.
pub(super) fn labelled(ticks: &[f64]) -> Vec<(f64, String)> {
    let step = ticks[1] - ticks[0];
    ticks.iter().map(|tick| (*tick, number(*tick, step))).collect()
}

/// About `count` round numbers that cover `low..=high`, the first at most `low` and the last at least `high`.
pub(super) fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    let high = if high > low { high } else { low + low.abs().max(1.0) };
    let rough = (high - low) / count.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|s| s * power).find(|step| *step >= rough * 0.999);
    let step = step.unwrap_or(10.0 * power);
    let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
    let last = if last > first { last } else { first + 1.0 };
    (0..=(last - first).min(100.0) as usize).map(|number| (first + number as f64) * step).collect()
}

/// A number of an axis: as many digits as tell neighbours apart that are `step` away.
pub(super) fn number(value: f64, step: f64) -> String {
    let digits = (-(step.log10() + 1e-9).floor()).clamp(0.0, 6.0) as usize;
    let value = if value == 0.0 { 0.0 } else { value };
    if value.abs() >= 10_000.0 { thousands(value) } else { format!("{value:.digits$}") }
}

/// A measured number, with as many digits as are worth reading.
pub(super) fn figure(value: f64) -> String {
    match value.abs() {
        large if large >= 10_000.0 => thousands(value),
        large if large >= 100.0 => format!("{value:.0}"),
        large if large >= 2.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// A whole number with its thousands apart.
pub(super) fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 { "−" } else { "" });
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_what_is_shown() {
        let check = |low: f64, high: f64, expected: &[&str]| {
            let ticks = ticks(low, high, 5);
            let step = ticks[1] - ticks[0];
            let said: Vec<String> = ticks.iter().map(|tick| number(*tick, step)).collect();
            assert_eq!(said, expected, "{low}..{high}");
        };
        check(0.0, 0.9, &["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        check(0.1, 0.13, &["0.10", "0.11", "0.12", "0.13"]);
        check(0.0, 0.0, &["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        check(0.0, 70_000.0, &["0", "20\u{202f}000", "40\u{202f}000", "60\u{202f}000", "80\u{202f}000"]);
    }

    #[test]
    fn neighbouring_lines_differ_in_colour_and_marker() {
        let marks: Vec<Mark> = (0..28).map(Mark::line).collect();
        assert!((0..28).all(|a| (0..a).all(|b| marks[a] != marks[b])), "{marks:?}");
        assert!(marks.windows(2).all(|pair| pair[0].shape != pair[1].shape && pair[0].colour != pair[1].colour));
    }
}
