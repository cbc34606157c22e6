//! Searches by a means that is given, whatever a planner would choose: for measuring what it costs and finds.

use super::View;
use crate::cells::Look;
use crate::exact::ScoredRow;
use crate::graph::Candidate;
use crate::planner::Plan;
use crate::search::{Found, Search, SearchError};

impl View {
    /// What [`search`](Self::search) finds where it walks with a list of `list`: filter and crowding apart. Absent without a graph, and
    /// where that list has fewer than are to be found.
    pub(crate) fn search_listed(&self, search: &Search<'_>, list: usize) -> Result<Option<Found>, SearchError> {
        search.check(self.vectors.dimension())?;
        let Some(graph) = &self.graph else { return Ok(None) };
        let mut met = graph.search(search.vector.as_slice(), list)?;
        met.rows.retain(|met| self.live.has(met.row) && !self.unlinked.contains(met.row));
        let unlinked = self.live.bitmap() & &*self.unlinked;
        let distances = met.distances + unlinked.len();
        met.rows.extend(unlinked.iter().map(Candidate::unscored));
        let is_answer = met.rows.len() >= search.k.min(self.live.len() as usize);
        Ok(is_answer.then(|| self.answer(search, &self.best_of(&met.rows, search), (Plan::Graph, list, distances))))
    }

    /// The same where it looks into cells with `share` of their radius. Absent without cells, and where that is no share.
    pub(crate) fn search_reaching(&self, search: &Search<'_>, share: f32) -> Result<Option<Found>, SearchError> {
        search.check(self.vectors.dimension())?;
        if !(0.0..=1.0).contains(&share) {
            return Ok(None);
        }
        let reach = self.measured.as_ref().and_then(|measured| measured.calibration.reach.as_ref());
        let expected = reach.and_then(|reach| reach.looks(search.k as f64)).map_or(1.0, |looks| looks.cells);
        let look = Look { share, expected, most: usize::MAX };
        // In vain only where there are none.
        let Ok(round) = self.look(&mut None, look, &|| false, search, None) else { return Ok(None) };
        Ok(Some(self.answer(search, &round.rows, (round.plan, 0, round.distances))))
    }

    fn answer(&self, search: &Search<'_>, rows: &[ScoredRow], (plan, list, distances): (Plan, usize, u64)) -> Found {
        Found {
            ads: self.found_all(rows, search),
            exhausted: (self.live.len() as usize) < search.k,
            plan,
            selectivity: None,
            selectivity_near: None,
            list: list as u32,
            distances,
            early_stopped: false,
            compared: 1.0,
        }
    }
}
