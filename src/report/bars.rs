//! Bar plots: panels of bars beside each other that share the names on their left.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::chart::{Axis, GRID, INK, Mark, SCALE, TEXT, figure, labelled, ticks};

/// Bars, from 0.
pub(super) struct Bars {
    /// From the top.
    pub(super) names: Vec<(String, Mark)>,
    /// From the left; at most four are readable.
    pub(super) panels: Vec<Panel>,
}

/// One panel.
pub(super) struct Panel {
    /// What stands above it.
    pub(super) title: String,
    /// A bar for each name; none: nothing was measured.
    pub(super) values: Vec<Option<Bar>>,
}

/// A bar, and the range around its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bar {
    pub(super) value: f64,
    pub(super) range: Option<[f64; 2]>,
}

/// The page's width, in its pixels.
const WIDTH: u32 = 944;
const ROW: u32 = 28;
/// The most letters of a name; the table beside the plot has the whole.
const NAME_LETTERS_MAX: usize = 48;
/// Above the bars, for titles, and below them, for the axis.
const ABOVE: u32 = 30;
const BELOW: u32 = 30;

type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

impl Bars {
    /// The bars as SVG; `None` where there are none.
    pub(super) fn svg(&self) -> Option<String> {
        if self.names.is_empty() || self.panels.is_empty() {
            return None;
        }
        let mut svg = String::new();
        let height = (self.names.len() as u32 * ROW + ABOVE + BELOW) * SCALE;
        let root = SVGBackend::with_string(&mut svg, (WIDTH * SCALE, height)).into_drawing_area();
        self.draw(&root).expect("a string takes every write");
        drop(root);
        Some(svg)
    }

    fn draw<'a>(&self, root: &Area<'a>) -> Drawn<'a> {
        let longest = self.names.iter().map(|(name, _)| name.chars().count().min(NAME_LETTERS_MAX)).max().unwrap_or(0);
        let names_width = (longest as u32 * 7 + 14) * SCALE;
        let (names, panels) = root.split_horizontally(names_width);
        self.draw_names(&names)?;
        for (panel, area) in self.panels.iter().zip(panels.split_evenly((1, self.panels.len()))) {
            self.draw_panel(panel, &area)?;
        }
        root.present()
    }

    fn draw_names<'a>(&self, area: &Area<'a>) -> Drawn<'a> {
        let right = Pos::new(HPos::Right, VPos::Center);
        let letters = ("sans-serif", TEXT).into_font().color(&INK).pos(right);
        let (width, _) = area.dim_in_pixel();
        for (row, (name, _)) in (0..).zip(&self.names) {
            let middle = (ABOVE + row * ROW + ROW / 2) * SCALE;
            area.draw_text(&shortened(name), &letters, ((width - 6 * SCALE) as i32, middle as i32))?;
        }
        Ok(())
    }

    fn draw_panel<'a>(&self, panel: &Panel, area: &Area<'a>) -> Drawn<'a> {
        let bars = panel.values.iter().flatten();
        let end = |bar: &Bar| bar.range.map_or(bar.value, |[_, high]| high.max(bar.value));
        let high = bars.map(end).fold(0.0, f64::max);
        let ticks = ticks(0.0, high, 4);
        let high = if high > 0.0 { high } else { ticks[ticks.len() - 1] };
        let ticks: Vec<f64> = ticks.into_iter().filter(|tick| *tick <= high * 1.2).collect();
        let rows = self.names.len() as f64;
        let title = ("sans-serif", TEXT, FontStyle::Bold).into_font().color(&INK);
        area.draw_text(&panel.title, &title, (8 * SCALE as i32, 2 * SCALE as i32))?;
        // Room on the right for the number of the longest bar.
        let x_axis = Axis { range: 0.0..high * 1.35, ticks: labelled(&ticks) };
        let y_axis = Axis { range: rows..0.0, ticks: Vec::new() };
        let mut chart = ChartBuilder::on(area)
            .margin_top(ABOVE * SCALE)
            .margin_left(8 * SCALE)
            .margin_right(4 * SCALE)
            .x_label_area_size(BELOW * SCALE)
            .build_cartesian_2d(x_axis, y_axis)?;
        chart
            .configure_mesh()
            .axis_style(INK.stroke_width(SCALE))
            .bold_line_style(GRID.stroke_width(SCALE))
            .light_line_style(TRANSPARENT)
            .label_style(("sans-serif", TEXT).into_font().color(&INK))
            .disable_y_axis()
            .draw()?;
        let left = Pos::new(HPos::Left, VPos::Center);
        let letters = ("sans-serif", TEXT - 3 * SCALE).into_font().color(&INK).pos(left);
        for (row, ((_, mark), value)) in self.names.iter().zip(&panel.values).enumerate() {
            let middle = row as f64 + 0.5;
            let Some(bar) = value else {
                chart.draw_series([Text::new("not measured", (0.0, middle), letters.clone())])?;
                continue;
            };
            let corners = [(0.0, middle - 0.32), (bar.value, middle + 0.32)];
            chart.draw_series([Rectangle::new(corners, mark.colour().mix(0.75).filled())])?;
            if let Some([from, to]) = bar.range {
                let range = [(from, middle), (to, middle)];
                chart.draw_series([PathElement::new(range, INK.stroke_width(2 * SCALE))])?;
            }
            let text = format!(" {}", figure(bar.value));
            chart.draw_series([Text::new(text, (end(bar) + high * 0.015, middle), letters.clone())])?;
        }
        Ok(())
    }
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= NAME_LETTERS_MAX {
        return name.to_owned();
    }
    name.chars().take(NAME_LETTERS_MAX - 1).chain(['…']).collect()
}
