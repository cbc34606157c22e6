//! How a shard is indexed.

/// What searches a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Exact below [`IndexSettings::exact_below_ads`], else what is expected to cost least: a walk of the graph, or a look into the
    /// cells of ads near the query.
    Auto,
    /// Every ad is compared with the query.
    Exact,
    /// A graph is walked from ad to nearer ad, but with a filter where another way costs less.
    DiskAnn,
}

/// How a shard is indexed and searched.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexSettings {
    /// What searches.
    pub backend: Backend,
    /// A smaller shard gets no graph under [`Backend::Auto`]: it is scanned as fast.
    pub exact_below_ads: usize,
    /// Edges kept for each ad of the graph; at least 1.
    pub degree: usize,
    /// Length of the candidate list while the graph is built; at least 1.
    pub build_list: usize,
    /// How much longer than the nearest way an edge may be before it is pruned; at least 1.
    pub alpha: f32,
    /// The share of an exact scan's ads that a search is to find, in the mean, in (0, 1]: the length of its candidate list is
    /// measured for that. Where no list reaches it, all ads are compared, or cells looked into.
    pub target_recall: f64,
    /// Threads that find cells and build the graph; 0 counts as 1. One thread makes the same graph every time.
    pub threads: usize,
}

/// What a node has where its configuration says nothing else; one thread.
impl Default for IndexSettings {
    fn default() -> Self {
        Self {
            backend: Backend::Auto,
            exact_below_ads: 40_000,
            degree: 32,
            build_list: 50,
            alpha: 1.2,
            target_recall: 0.95,
            threads: 1,
        }
    }
}
