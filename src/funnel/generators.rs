//! Where candidates come from: five ways to propose ads for a request.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use anyhow::bail;
use rand::SeedableRng;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use turret_model::{HeadInput, Model};
use turret_retrieval::dataset::Dataset;
use turret_retrieval::event::Event;
use turret_retrieval::topk::TopK;
use turret_retrieval::vector::{UnitVector, dot};

use super::ads::Ads;
use super::asked::Asked;

/// Requests between two calls of the observer, and histories encoded at once.
const CHUNK: usize = 128;
/// Ads embedded at once.
const EMBED_ROWS: usize = 1_024;
const DAY_MS: i64 = 86_400_000;

/// One way to propose ads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generator {
    /// The contextual model: history up to the cut, demographics, and what the user looks at or searches for.
    Contextual,
    /// The model of history and demographics.
    HistoryOnly,
    /// The likeness of the ad's interests to the subject's; of its title's words to the query's.
    ContentNeighbours,
    /// Events of the last 24 hours before the cut.
    Popularity,
    /// Chance.
    Random,
}

impl Generator {
    /// All, in the order of reports.
    pub const ALL: [Self; 5] =
        [Self::Contextual, Self::HistoryOnly, Self::ContentNeighbours, Self::Popularity, Self::Random];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Contextual => "contextual",
            Self::HistoryOnly => "history only",
            Self::ContentNeighbours => "content nearest-neighbour",
            Self::Popularity => "popularity, last 24 h",
            Self::Random => "random",
        }
    }
}

/// Ads by request, best first.
pub(super) type Proposals = Vec<Vec<u32>>;

/// What every generator reads.
pub(super) struct Sources<'a> {
    pub(super) data: &'a Dataset,
    pub(super) ads: &'a Ads<'a>,
    /// Nothing later is known of users and items but the request itself.
    pub(super) cut_ms: i64,
    /// Ads proposed for each request.
    pub(super) candidates: usize,
}

/// An ad with its score; the better one is the smaller.
struct Scored {
    score: f32,
    ad: u32,
}

impl Ord for Scored {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.ad.cmp(&other.ad))
    }
}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scored {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scored {}

/// The best `count` ads by `scores`, ties by number.
fn best(scores: impl Iterator<Item = f32>, count: usize) -> Vec<u32> {
    let mut top = TopK::new(count);
    (0..).zip(scores).for_each(|(ad, score)| top.push(Scored { score, ad }));
    top.into_sorted().into_iter().map(|scored| scored.ad).collect()
}

impl Sources<'_> {
    /// The ads nearest to the query embeddings of a model, which gets the context if it reads one; exact search.
    pub(super) fn by_model(
        &self,
        model: &Model,
        asked: &[Asked<'_>],
        step: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> anyhow::Result<Proposals> {
        let items = self.ads.items(self.data);
        let mut embeddings: Vec<UnitVector> = Vec::with_capacity(items.len());
        for items in items.chunks(EMBED_ROWS) {
            embeddings.extend(model.embed_items(items)?);
        }
        let mut proposals = Proposals::with_capacity(asked.len());
        for asked in asked.chunks(CHUNK) {
            for query in self.queries(model, asked)? {
                let scores = embeddings.iter().map(|ad| dot(query.as_slice(), ad.as_slice()));
                proposals.push(best(scores, self.candidates));
            }
            if step(asked.len() as u64).is_break() {
                bail!("broken off");
            }
        }
        Ok(proposals)
    }

    fn queries(&self, model: &Model, asked: &[Asked<'_>]) -> anyhow::Result<Vec<UnitVector>> {
        let histories: Vec<Vec<Event>> = asked.iter().map(|asked| self.history(asked.user, model)).collect();
        let states = model.encode(&histories.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        let contexts: Vec<_> = asked.iter().map(Asked::context).collect();
        let input = |(number, asked): (usize, &Asked<'_>)| HeadInput {
            state: (!histories[number].is_empty()).then_some(states[number].as_slice()),
            context: Some(&contexts[number]),
            demographics: &self.data.users[asked.user as usize].demographics,
        };
        Ok(model.embed_queries(&asked.iter().enumerate().map(input).collect::<Vec<_>>())?)
    }

    /// What the encoder saw of a user on the night before.
    fn history(&self, user: u32, model: &Model) -> Vec<Event> {
        let rows = self.data.events_of(user);
        let rows = &rows[..rows.partition_point(|row| row.at < self.cut_ms)];
        let rows = &rows[rows.len().saturating_sub(model.settings().history_length_max)..];
        let event = |row: &turret_retrieval::dataset::Row| Event {
            item_id: self.data.items[row.item as usize].id.clone(),
            event_type: row.kind,
            timestamp_ms: row.at,
            event_id: None,
        };
        rows.iter().map(event).collect()
    }

    /// The ads whose interests are most like the subject's; for searches, whose titles share most with the query.
    pub(super) fn by_content(&self, asked: &[Asked<'_>]) -> Proposals {
        let items = self.ads.items(self.data);
        let interests = Postings::of(items.iter().map(|item| {
            let interests = item.interests.iter();
            interests.map(|interest| (interest.id.as_str().to_owned(), interest.confidence)).collect()
        }));
        let titles = Postings::of(items.iter().map(|item| words(item.title.as_deref().unwrap_or_default())));
        let propose = |asked: &Asked<'_>| {
            let subject: Vec<(String, f32)> =
                asked.log.subject_interests.iter().map(|own| (own.id.as_str().to_owned(), own.confidence)).collect();
            let scores = match &asked.log.query {
                Some(query) if subject.is_empty() => titles.scores(&words(query)),
                Some(_) | None => interests.scores(&subject),
            };
            best(scores.into_iter(), self.candidates)
        };
        asked.iter().map(propose).collect()
    }

    /// The ads whose items had the most events on the day before the cut; the same for every request.
    pub(super) fn by_popularity(&self, requests: usize) -> Proposals {
        let mut counts = vec![0u32; self.data.items.len()];
        let recent = self.cut_ms - DAY_MS..self.cut_ms;
        let rows = self.data.events().iter().filter(|row| recent.contains(&row.at));
        rows.for_each(|row| counts[row.item as usize] += 1);
        let popular = best(self.ads.all.iter().map(|ad| counts[ad.item as usize] as f32), self.candidates);
        vec![popular; requests]
    }

    /// Any ads.
    pub(super) fn by_chance(&self, requests: usize, seed: u64) -> Proposals {
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        let all = self.ads.all.len();
        let draw = |_| sample(random, all, self.candidates.min(all)).into_iter().map(|ad| ad as u32).collect();
        (0..requests).map(draw).collect()
    }
}

/// The words of a text, each once.
fn words(text: &str) -> Vec<(String, f32)> {
    let words: BTreeSet<String> = text.split_whitespace().map(str::to_lowercase).collect();
    words.into_iter().map(|word| (word, 1.0)).collect()
}

/// Which ads have a feature, and how strongly; an ad's strengths have the length 1.
struct Postings {
    by_feature: HashMap<String, Vec<(u32, f32)>>,
    ads: usize,
}

impl Postings {
    fn of(features: impl ExactSizeIterator<Item = Vec<(String, f32)>>) -> Self {
        let mut postings = Self { by_feature: HashMap::new(), ads: features.len() };
        for (ad, features) in (0..).zip(features) {
            let length = features.iter().map(|(_, strength)| strength * strength).sum::<f32>().sqrt();
            for (feature, strength) in features {
                postings.by_feature.entry(feature).or_default().push((ad, strength / length));
            }
        }
        postings
    }

    /// The inner product of every ad with `features`: the cosine, but for a factor that all ads share.
    fn scores(&self, features: &[(String, f32)]) -> Vec<f32> {
        let mut scores = vec![0.0; self.ads];
        for (feature, strength) in features {
            for (ad, own) in self.by_feature.get(feature).into_iter().flatten() {
                scores[*ad as usize] += strength * own;
            }
        }
        scores
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_ties_by_number() {
        assert_eq!(best([0.5, 2.0, 0.5, -1.0].into_iter(), 3), [1, 0, 2]);
        assert_eq!(best([1.0].into_iter(), 3), [0]);
    }

    #[test]
    fn likeness_of_content_is_a_cosine() {
        let features = [vec![("a".to_owned(), 1.0)], vec![("a".to_owned(), 3.0), ("b".to_owned(), 4.0)], vec![]];
        let postings = Postings::of(features.into_iter());
        let scores = postings.scores(&[("b".to_owned(), 1.0), ("a".to_owned(), 0.5), ("c".to_owned(), 9.0)]);
        assert_eq!(scores, [0.5, 0.3 + 0.8, 0.0]);
        assert_eq!(words("Red  chair red"), [("chair".to_owned(), 1.0), ("red".to_owned(), 1.0)]);
    }
}
