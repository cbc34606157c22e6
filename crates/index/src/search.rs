//! What a search asks of a shard, and what it answers.

use serde::{Deserialize, Serialize};
use turret_retrieval::crowding::{Crowding, CrowdingError};
use turret_retrieval::filter::Filter;
use turret_retrieval::topk::{Hit, K_MAX};
use turret_retrieval::vector::UnitVector;

use crate::graph::GraphError;
use crate::planner::Plan;
use crate::rows::{UnitError, check_unit};

mod filter_shape;

pub use filter_shape::FilterShapeError;
use filter_shape::check_shape;

/// One search.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// The query embedding, of the generation of the shard.
    pub vector: &'a UnitVector,
    /// Another query embedding of that generation, by which the ads found are scored too. It has no part in finding them.
    pub baseline: Option<&'a UnitVector>,
    /// How many ads, 1 to [`K_MAX`].
    pub k: usize,
    /// Only ads that pass.
    pub filter: Option<&'a Filter>,
    /// At most so many ads of one value; what is one too many is passed over.
    pub crowding: Option<&'a Crowding>,
    /// Whether every ad that passes is compared, whatever a graph would say: what the graph is measured against.
    pub exact: bool,
}

/// An ad that was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FoundAd {
    /// The ad and its score.
    pub hit: Hit,
    /// The advertiser, where the ad names one.
    pub advertiser: Option<Box<str>>,
    /// Its score by [`Search::baseline`], where there was one.
    pub baseline_score: Option<f32>,
    /// Its value of the field of [`Search::crowding`], where there was one.
    pub crowd: Option<Box<str>>,
}

/// The best ads of the shard, and how they were found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// In the order of [`Hit`]. `k` of them wherever so many ads pass, unless it was stopped early.
    pub ads: Vec<FoundAd>,
    /// Fewer than `k` ads pass the filter and the crowding, and all of them are here.
    pub exhausted: bool,
    /// How they were found.
    pub plan: Plan,
    /// Share of the shard's ads that pass the filter, in [0, 1], where there was one; 0 for an empty shard.
    pub selectivity: Option<f64>,
    /// Share of the ads near the query that pass the filter, in [0, 1], where the plan depended
    /// on it.
    pub selectivity_near: Option<f64>,
    /// The longest candidate list that the graph was walked with; 0 where it was not.
    pub list: u32,
    /// How many ads were compared with the query, by the graph and by the scan.
    pub distances: u64,
    /// Whether time was up: these are the best of what was compared until then.
    pub early_stopped: bool,
    /// Where it stopped early, in a scan the share of the ads that pass which were compared, in a look into cells the share of those in
    /// question that were looked into, and else the share of the hits wanted that were met; in [0, 1]. Else 1.
    pub compared: f64,
}

/// Why a search was not done.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SearchError {
    /// No answer has so many hits.
    #[error("k {found} is not in 1..={K_MAX}")]
    K {
        /// What was asked for.
        found: usize,
    },
    /// The query is not a unit vector of this index.
    #[error("vector: {0}")]
    Vector(#[from] UnitError),
    /// The query to compare with is not a unit vector of this index.
    #[error("baseline: {0}")]
    Baseline(#[source] UnitError),
    /// A cap that admits nothing.
    #[error("crowding: {0}")]
    Crowding(#[from] CrowdingError),
    /// The filter is larger than any that a parser lets through.
    #[error("filter: {0}")]
    Filter(#[from] FilterShapeError),
    /// The graph failed.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

impl Search<'_> {
    /// Checks it against an index of embeddings of length `dimension`.
    pub(crate) fn check(&self, dimension: usize) -> Result<(), SearchError> {
        if !(1..=K_MAX).contains(&self.k) {
            return Err(SearchError::K { found: self.k });
        }
        check_unit(self.vector.as_slice(), dimension)?;
        if let Some(baseline) = self.baseline {
            check_unit(baseline.as_slice(), dimension).map_err(SearchError::Baseline)?;
        }
        self.crowding.map_or(Ok(()), Crowding::check_max)?;
        self.filter.map_or(Ok(()), |filter| Ok(check_shape(filter)?))
    }
}
