//! Line plots: one panel of lines over numbers, with a range at each point.

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::chart::{Axis, GRID, INK, Mark, SCALE, Shape, TEXT, labelled, ticks};

/// One panel.
pub(super) struct Lines {
    /// What stands above it.
    pub(super) title: String,
    /// What is to the right.
    pub(super) x: String,
    pub(super) scale: Scale,
    pub(super) lines: Vec<Line>,
    /// What does not depend on x.
    pub(super) levels: Vec<Level>,
}

/// How x is laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    /// Powers of ten; only where every x is above 0.
    Logarithmic,
}

/// A line through points.
pub(super) struct Line {
    pub(super) mark: Mark,
    pub(super) points: Vec<Place>,
}

/// A point, and the range around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) range: Option<[f64; 2]>,
}

/// A level line, and the band around it.
pub(super) struct Level {
    pub(super) mark: Mark,
    pub(super) y: f64,
    pub(super) range: Option<[f64; 2]>,
}

/// How much of the page's width a panel takes, in pixels of the page.
#[derive(Clone, Copy)]
pub(super) enum Size {
    Whole,
    Half,
}

impl Size {
    /// That of each of `panels`.
    pub(super) fn of(panels: usize) -> Self {
        if panels > 1 { Self::Half } else { Self::Whole }
    }

    fn drawn(self) -> (u32, u32) {
        match self {
            Self::Whole => (736 * SCALE, 400 * SCALE),
            Self::Half => (480 * SCALE, 330 * SCALE),
        }
    }
}

/// The most places of x that are all written below it, and the most letters of each: chosen values, not measured ones.
const PLACES_MAX: usize = 9;
const PLACE_LETTERS_MAX: usize = 5;

type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

impl Lines {
    /// The panel as SVG; `None` where there is nothing to draw.
    pub(super) fn svg(&self, size: Size) -> Option<String> {
        if self.lines.iter().all(|line| line.points.is_empty()) {
            return None;
        }
        let mut svg = String::new();
        let root = SVGBackend::with_string(&mut svg, size.drawn()).into_drawing_area();
        self.draw(&root).expect("a string takes every write");
        drop(root);
        Some(svg)
    }

    fn places(&self) -> impl Iterator<Item = &Place> {
        self.lines.iter().flat_map(|line| &line.points)
    }

    fn at(&self, x: f64) -> f64 {
        match self.scale {
            Scale::Linear => x,
            Scale::Logarithmic => x.log10(),
        }
    }

    /// Where x is written, and as what.
    fn x_ticks(&self) -> Vec<(f64, String)> {
        let mut places: Vec<f64> = self.places().map(|place| place.x).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        let texts: Vec<String> = places.iter().map(f64::to_string).collect();
        if (2..=PLACES_MAX).contains(&places.len()) && texts.iter().all(|text| text.len() <= PLACE_LETTERS_MAX) {
            return places.iter().map(|x| self.at(*x)).zip(texts).collect();
        }
        let (low, high) = (self.at(places[0]), self.at(places[places.len() - 1]));
        labelled(&ticks(low, high, 6))
    }

    /// From 0, unless the differences would be lost.
    fn y_ticks(&self) -> Vec<f64> {
        let places = self.places().map(|place| (place.y, place.range));
        let levels = self.levels.iter().map(|level| (level.y, level.range));
        let ends =
            places.chain(levels).flat_map(|(y, range)| range.map_or([y, y], |[low, high]| [low.min(y), high.max(y)]));
        let (low, high) = ends.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
        let low = if low >= 0.0 && low < 0.6 * high { 0.0 } else { low };
        ticks(low, high, 6)
    }

    fn draw<'a>(&self, root: &DrawingArea<SVGBackend<'a>, Shift>) -> Drawn<'a> {
        let (x_ticks, y_ticks) = (self.x_ticks(), self.y_ticks());
        let (y_low, y_high) = (y_ticks[0], y_ticks[y_ticks.len() - 1]);
        let (low, high) = (x_ticks[0].0, x_ticks[x_ticks.len() - 1].0);
        let margin = (high - low) * 0.04;
        let letters = ("sans-serif", TEXT).into_font().color(&INK);
        let title = ("sans-serif", TEXT, FontStyle::Bold).into_font().color(&INK);
        root.draw_text(&self.title, &title, (4 * SCALE as i32, 2 * SCALE as i32))?;
        let x_axis = Axis { range: low - margin..high + margin, ticks: x_ticks };
        let y_axis = Axis { range: y_low..y_high, ticks: labelled(&y_ticks) };
        let mut chart = ChartBuilder::on(root)
            .margin_top(30 * SCALE)
            .margin_right(12 * SCALE)
            .x_label_area_size(46 * SCALE)
            .y_label_area_size(56 * SCALE)
            .build_cartesian_2d(x_axis, y_axis)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .axis_style(INK.stroke_width(SCALE))
            .bold_line_style(GRID.stroke_width(SCALE))
            .light_line_style(TRANSPARENT)
            .label_style(letters.clone())
            .axis_desc_style(letters)
            .x_desc(self.x.as_str())
            .draw()?;
        self.draw_levels(&mut chart, [low - margin, high + margin])?;
        // Ranges beside each other, so that none hides another.
        let aside = (high - low) * 0.006;
        let middle = (self.lines.len() as f64 - 1.0) / 2.0;
        for (number, line) in self.lines.iter().enumerate() {
            self.draw_line(&mut chart, line, (number as f64 - middle) * aside)?;
        }
        root.present()
    }

    fn draw_levels<'a>(&self, chart: &mut Chart<'_, 'a>, [left, right]: [f64; 2]) -> Drawn<'a> {
        for level in &self.levels {
            let colour = level.mark.colour();
            if let Some([from, to]) = level.range {
                let corners = [(left, from), (right, to)];
                chart.draw_series([Rectangle::new(corners, colour.mix(0.14).filled())])?;
            }
            let ends = [(left, level.y), (right, level.y)];
            let style = colour.stroke_width(2 * SCALE);
            chart.draw_series([DashedPathElement::new(ends, 7 * SCALE, 5 * SCALE, style)])?;
        }
        Ok(())
    }

    fn draw_line<'a>(&self, chart: &mut Chart<'_, 'a>, line: &Line, aside: f64) -> Drawn<'a> {
        let x = |place: &Place| self.at(place.x) + aside;
        let colour = line.mark.colour();
        let path: Vec<(f64, f64)> = line.points.iter().map(|place| (x(place), place.y)).collect();
        chart.draw_series([PathElement::new(path.clone(), colour.stroke_width(2 * SCALE))])?;
        let ranges = line.points.iter().filter_map(|place| Some((x(place), place.range?)));
        let thin = colour.stroke_width(SCALE);
        chart.draw_series(ranges.map(|(x, [from, to])| PathElement::new([(x, from), (x, to)], thin)))?;
        draw_markers(chart, path, line.mark)
    }
}

type Chart<'c, 'a> = ChartContext<'c, SVGBackend<'a>, Cartesian2d<Axis, Axis>>;

fn draw_markers<'a>(chart: &mut Chart<'_, 'a>, places: Vec<(f64, f64)>, mark: Mark) -> Drawn<'a> {
    let (filled, size) = (mark.colour().filled(), 4 * SCALE);
    let corners = [(-(size as i32), -(size as i32)), (size as i32, size as i32)];
    let square = |place| EmptyElement::at(place) + Rectangle::new(corners, filled);
    let cross = mark.colour().stroke_width(2 * SCALE);
    match mark.shape {
        Shape::Triangle => {
            chart.draw_series(places.into_iter().map(|at| TriangleMarker::new(at, size + SCALE, filled)))?
        }
        Shape::Square => chart.draw_series(places.into_iter().map(square))?,
        Shape::Cross => chart.draw_series(places.into_iter().map(|at| Cross::new(at, size, cross)))?,
        Shape::Circle | Shape::Bar | Shape::Dashes => {
            chart.draw_series(places.into_iter().map(|at| Circle::new(at, size, filled)))?
        }
    };
    Ok(())
}
