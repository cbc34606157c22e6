//! Many exact searches of one shard at once.

use turret_retrieval::topk::{Hit, K_MAX};
use turret_retrieval::vector::UnitVector;

use super::{SearchError, ShardIndex};
use crate::rows::check_unit;

impl ShardIndex {
    /// The best `k` ads for each of `queries`, in the order of [`Hit`]: what a [`search`](Self::search) that is exact finds.
    ///
    /// The embeddings are read once for all of them, which costs a fraction of as many searches.
    ///
    /// # Errors
    /// When `k` or a query breaks a rule; asking again will not help.
    pub fn scan_many(&self, queries: &[UnitVector], k: usize) -> Result<Vec<Vec<Hit>>, SearchError> {
        if !(1..=K_MAX).contains(&k) {
            return Err(SearchError::K { found: k });
        }
        queries.iter().try_for_each(|query| check_unit(query.as_slice(), self.dimension()))?;
        let queries: Vec<&[f32]> = queries.iter().map(UnitVector::as_slice).collect();
        Ok(self.view().scan_many(&queries, k))
    }
}
