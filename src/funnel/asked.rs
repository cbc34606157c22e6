//! Logged requests joined with what was known when they were made.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::{Context as _, bail};
use turret_data::LoggedRequest;
use turret_retrieval::context::{Context, Subject};
use turret_retrieval::dataset::{Clock, Dataset};

/// A logged request, and its user's events up to it.
pub(super) struct Asked<'a> {
    pub(super) log: &'a LoggedRequest,
    /// Row in the data set.
    pub(super) user: u32,
    /// Events before the request, as positions in the data set; at least one.
    pub(super) history: Range<usize>,
    /// Row of the item of the last of them: what the user looks at.
    pub(super) looked_at: u32,
}

impl<'a> Asked<'a> {
    /// Joins a log with its data set, in the order of time; requests of users without an event before them are left out.
    ///
    /// # Errors
    /// Where a request's user is not of the data set, or the data set has no times.
    pub(super) fn join(log: &'a [LoggedRequest], data: &Dataset) -> anyhow::Result<Vec<Self>> {
        if data.clock != Clock::Milliseconds {
            bail!("a log of requests needs events with times, and these have only an order");
        }
        let users: HashMap<&str, u32> = data.users.iter().zip(0..).map(|(user, row)| (user.id.as_str(), row)).collect();
        let mut asked = Vec::with_capacity(log.len());
        for request in log {
            let id = &request.request_id;
            let user = *users.get(request.user_id.as_str()).with_context(|| format!("request {id}: unknown user"))?;
            let start = data.range_of(user).start;
            let end = start + data.events_of(user).partition_point(|row| row.at <= request.timestamp_ms);
            if end > start {
                asked.push(Self { log: request, user, history: start..end, looked_at: data.events()[end - 1].item });
            }
        }
        asked.sort_by_key(|request| request.log.timestamp_ms);
        Ok(asked)
    }

    /// What a retrieval is told: the subject's interests, or the query.
    pub(super) fn context(&self) -> Context {
        let interests = &self.log.subject_interests;
        let subject = (!interests.is_empty()).then(|| Subject { item_id: None, interests: interests.clone() });
        Context { subject, query: self.log.query.clone() }
    }
}
