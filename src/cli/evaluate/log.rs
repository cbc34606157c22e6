//! A log of requests, as the evaluation wants it.

use std::path::Path;

use turret_data::LoggedRequest;
use turret_model::Request;
use turret_retrieval::context::{Context, Subject};

use super::super::progress::Bar;

/// Reads the log at `path`, with a bar.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<Request>> {
    let bar = Bar::new("reading requests", "rows");
    let logged = turret_data::read_requests(path, &mut |progress| {
        bar.at(progress.done, progress.total, || progress.what.to_string())
    });
    Ok(bar.end(logged)?.into_iter().map(request).collect())
}

fn request(logged: LoggedRequest) -> Request {
    let interests = logged.subject_interests;
    let subject = (!interests.is_empty()).then_some(Subject { item_id: None, interests });
    Request {
        user: logged.user_id,
        at_ms: logged.timestamp_ms,
        surface: logged.surface,
        context: Context { subject, query: logged.query },
        delivered: logged.delivered,
    }
}
