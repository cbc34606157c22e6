//! Studies: the trainings and evaluations of one plan, kept as they are made, and one file of figures over all of them.
//!
//! A [`Plan`] expands into [`Point`]s, each a checked configuration; every point is measured once for each seed. What was
//! measured is kept in a [`Ledger`], so that a study that was broken off goes on where it stopped. [`Figures`] are the
//! means over the seeds. Nothing here trains: that is the command's part.

mod figures;
mod ledger;
mod plan;
mod point;

pub use figures::{Figures, Plot, REFERENCE, Row, SliceRow, gather};
pub use ledger::{Ledger, LedgerError, Measured, Measurement, Training};
pub use plan::{Plan, PlanError, Run};
pub use point::Point;
