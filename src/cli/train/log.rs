//! The log that is trained on: in memory, or in parts on disk where there are too many events.

use turret_data::{DataSource, EVENTS_PER_PART, PartsPlan};
use turret_retrieval::dataset::Parts;

use super::read;
use crate::cli::progress::Bar;
use crate::cli::tell;
use crate::config::Config;

/// Opens the log of `config`; parts are removed when it is dropped.
pub(in crate::cli) fn open(config: &Config, source: &DataSource) -> anyhow::Result<Box<dyn Parts>> {
    let plan = PartsPlan::of(source, EVENTS_PER_PART.min(config.events_in_memory_max))?;
    if plan.events <= config.events_in_memory_max {
        return Ok(Box::new(read(source)?));
    }
    let dir = config.data_dir.join("parts");
    tell(format!(
        "{} events, more than training.events_in_memory_max: split into {} parts in {}, at most {:.1} GB",
        plan.events,
        plan.parts,
        dir.display(),
        plan.disk_bytes_max as f64 / 1e9
    ));
    let bar = Bar::new("splitting", "rows");
    let log =
        plan.split(source, &dir, &mut |progress| bar.at(progress.done, progress.total, || progress.what.to_string()));
    Ok(Box::new(bar.end(log)?))
}
