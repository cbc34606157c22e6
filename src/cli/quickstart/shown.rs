//! What the quickstart shows: a few users, and the ads they get with and without what they are looking at.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::{Value, json};
use turret_model::Split;
use turret_retrieval::dataset::Dataset;
use turret_retrieval::item::Item;

use super::text;
use crate::cli::retrieve::post;
use crate::cli::table::table;

/// Users shown.
const PEOPLE: usize = 3;
/// Ads shown for each.
const ADS: usize = 6;
/// The shortest history worth showing.
const HISTORY_MIN: usize = 8;
/// Requests written for `turret load`.
const REQUESTS: usize = 2_000;

/// A user with what they look at on the day that is tested on.
pub(super) struct Person {
    id: String,
    who: String,
    /// The commonest interests of the history, with how many events had them.
    lately: Vec<(String, usize)>,
    /// The subject's interests, as a request has them.
    subject: Value,
    /// The subject's first interest.
    looking_at: String,
}

/// The first users who look at something on the tested day that is none of their usual.
pub(super) fn people(dataset: &Dataset, split: &Split) -> Vec<Person> {
    let Split::Temporal { cut_ms, until_ms, .. } = *split else { return Vec::new() };
    let person = |user: u32| {
        let rows = dataset.events_of(user);
        let (history, today) = rows.split_at(rows.partition_point(|row| row.at < cut_ms));
        let subject = &dataset.items[today.iter().find(|row| row.at < until_ms)?.item as usize];
        let looking_at = first_interest(subject)?.to_owned();
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for row in history {
            *counts.entry(first_interest(&dataset.items[row.item as usize])?).or_default() += 1;
        }
        let root = |interest: &str| interest.split('/').next().map(str::to_owned);
        let is_new = counts.keys().all(|interest| root(interest) != root(&looking_at));
        let mut lately: Vec<(String, usize)> = counts.into_iter().map(|(id, count)| (id.to_owned(), count)).collect();
        lately.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        lately.truncate(3);
        let known = &dataset.users[user as usize];
        let facts = &known.demographics;
        let age = facts.age.map(|age| age.to_string());
        let words = [age.as_deref(), facts.country.as_deref(), facts.gender.as_deref()];
        let who = words.into_iter().flatten().collect::<Vec<_>>().join(", ");
        (history.len() >= HISTORY_MIN && is_new).then(|| Person {
            id: known.id.to_string(),
            who,
            lately,
            subject: json!({ "interests": subject.interests }),
            looking_at,
        })
    };
    (0..dataset.users.len() as u32).filter_map(person).take(PEOPLE).collect()
}

fn first_interest(item: &Item) -> Option<&str> {
    item.interests.first().map(|interest| interest.id.as_str())
}

/// The item of every ad, by the ad's id.
pub(super) fn items_of_ads(dataset: &Dataset) -> HashMap<&str, &Item> {
    let items: HashMap<&str, &Item> = dataset.items.iter().map(|item| (item.id.as_str(), item)).collect();
    dataset.ads.iter().filter_map(|ad| Some((ad.id.as_str(), *items.get(ad.item.as_str())?))).collect()
}

/// One ad of an answer.
#[derive(Serialize)]
struct Shown {
    ad: String,
    score: f64,
    interests: Vec<String>,
}

/// What one user got, with and without context.
#[derive(Serialize)]
pub(super) struct Comparison {
    pub(super) generation: String,
    user: String,
    who: String,
    lately: Vec<(String, usize)>,
    looking_at: String,
    without_context: Vec<Shown>,
    with_context: Vec<Shown>,
}

impl Comparison {
    /// Asks the node at `url` twice.
    pub(super) async fn ask(url: &str, person: &Person, items: &HashMap<&str, &Item>) -> anyhow::Result<Self> {
        let mut body = json!({ "user_id": person.id, "surface": "related_pins", "k": ADS, "deadline_ms": 1_000 });
        let without = post(url, &body).await?;
        body["context"] = json!({ "subject": person.subject });
        let with = post(url, &body).await?;
        Ok(Self {
            generation: text(&with["generation"], "id"),
            user: person.id.clone(),
            who: person.who.clone(),
            lately: person.lately.clone(),
            looking_at: person.looking_at.clone(),
            without_context: shown(&without, items),
            with_context: shown(&with, items),
        })
    }

    pub(super) fn user(&self) -> &str {
        &self.user
    }

    pub(super) fn looking_at(&self) -> &str {
        &self.looking_at
    }

    pub(super) fn render(&self) -> String {
        let lately: Vec<String> = self.lately.iter().map(|(id, count)| format!("{id} ×{count}")).collect();
        let cell = |shown: Option<&Shown>| match shown {
            Some(shown) => [format!("{:.3}", shown.score), shown.ad.clone(), shown.interests.join(" ")],
            None => Default::default(),
        };
        let rows: Vec<Vec<String>> = (0..self.without_context.len().max(self.with_context.len()))
            .map(|place| {
                let [score, ad, interests] = cell(self.without_context.get(place));
                let [with_score, with_ad, with_interests] = cell(self.with_context.get(place));
                vec![interests, ad, score, with_interests, with_ad, with_score]
            })
            .collect();
        format!(
            "user {} ({}), lately {}\nlooking at {}\n\n{}",
            self.user,
            self.who,
            lately.join(", "),
            self.looking_at,
            table(&["from history alone", "ad", "score", "with the context", "ad", "score"], &rows)
        )
    }
}

fn shown(answer: &Value, items: &HashMap<&str, &Item>) -> Vec<Shown> {
    let candidate = |candidate: &Value| {
        let ad = text(candidate, "ad_id");
        let item = items.get(ad.as_str());
        let interests = item.map_or_else(Vec::new, |item| {
            item.interests.iter().take(2).map(|interest| interest.id.to_string()).collect()
        });
        Shown { score: candidate["score"].as_f64().unwrap_or_default(), interests, ad }
    };
    answer["candidates"].as_array().into_iter().flatten().map(candidate).collect()
}

/// Writes `requests.ndjson` for `turret load`: users in turn, looking at the item of their latest event.
pub(super) fn write_requests(dir: &Path, dataset: &Dataset) -> anyhow::Result<Vec<bytes::Bytes>> {
    let path = dir.join("requests.ndjson");
    let mut bodies = Vec::with_capacity(REQUESTS);
    for (user, known) in (0u32..).zip(&dataset.users) {
        if bodies.len() == REQUESTS {
            break;
        }
        let Some(last) = dataset.events_of(user).last() else { continue };
        let subject = json!({ "interests": dataset.items[last.item as usize].interests });
        let body = json!({
            "user_id": known.id, "surface": "related_pins", "context": { "subject": subject }, "k": 100,
        });
        bodies.push(bytes::Bytes::from(body.to_string()));
    }
    let write = || {
        let mut file = std::io::BufWriter::new(std::fs::File::create(&path)?);
        for body in &bodies {
            file.write_all(body)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(bodies)
}
