//! What handing over has found out of changed ads, by generation.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use turret_retrieval::ids::{AdId, GenerationId};
use turret_retrieval::revision::Revision;
use turret_retrieval::vector::UnitVector;

use super::CHANGED_ADS_MAX;

/// Of two generations that run at once. Beyond it all are forgotten, and found out again.
const KNOWN_MAX: usize = 2 * CHANGED_ADS_MAX;

/// Clones share it.
#[derive(Clone, Default)]
pub(super) struct Known(Arc<Mutex<Maps>>);

type Of<T> = HashMap<(GenerationId, AdId), T>;

#[derive(Default)]
struct Maps {
    /// What the ad tower makes of an ad as it is since then: every shard that starts asks for it.
    embeddings: Of<(Revision, UnitVector)>,
    /// Ads that an index will never take as they are since then.
    refused: Of<Revision>,
}

impl Known {
    /// What the ad tower of a generation made of an ad, as it is since `at`.
    pub(super) fn embedding(&self, generation: &GenerationId, ad: &AdId, at: Revision) -> Option<UnitVector> {
        let maps = self.maps();
        let (known_at, embedding) = maps.embeddings.get(&(generation.clone(), ad.clone()))?;
        (*known_at == at).then(|| embedding.clone())
    }

    pub(super) fn embedded(&self, generation: &GenerationId, ad: &AdId, at: Revision, embedding: &UnitVector) {
        keep(&mut self.maps().embeddings, (generation.clone(), ad.clone()), (at, embedding.clone()));
    }

    /// Whether the index of a generation refused an ad as it is since `at`: then what was there stands.
    pub(super) fn is_refused(&self, generation: &GenerationId, ad: &AdId, at: Revision) -> bool {
        self.maps().refused.get(&(generation.clone(), ad.clone())) == Some(&at)
    }

    pub(super) fn refused(&self, generation: &GenerationId, ad: &AdId, at: Revision) {
        keep(&mut self.maps().refused, (generation.clone(), ad.clone()), at);
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep<T>(of: &mut Of<T>, key: (GenerationId, AdId), value: T) {
    if of.len() >= KNOWN_MAX {
        of.clear();
    }
    of.insert(key, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_of_another_revision_or_generation_is_not_known() {
        let known = Known::default();
        let of = |name: &str| GenerationId::new(name).unwrap();
        let (ad, vector) = (AdId::from(7), UnitVector::normalize(vec![3.0, 4.0]).unwrap());
        let [first, second] = [1, 2].map(Revision::from_bits);
        known.embedded(&of("g-1"), &ad, first, &vector);
        known.refused(&of("g-1"), &ad, second);
        assert_eq!(known.embedding(&of("g-1"), &ad, first), Some(vector));
        assert_eq!(known.embedding(&of("g-1"), &ad, second), None);
        assert_eq!(known.embedding(&of("g-2"), &ad, first), None);
        assert!(known.is_refused(&of("g-1"), &ad, second));
        assert!(!known.is_refused(&of("g-1"), &ad, first) && !known.is_refused(&of("g-2"), &ad, second));
    }
}
