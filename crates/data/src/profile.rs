//! What a data set holds, at a glance.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use turret_retrieval::dataset::{Clock, Dataset};
use turret_retrieval::event::EventType;
use turret_retrieval::item::{Attribute, AttributeKind, Item};
use turret_retrieval::user::User;

/// The size and shape of a data set. Displays as several lines, without a line break at the end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Profile {
    /// How many events.
    pub events: u64,
    /// How many more the data source leaves out, by `from` and `until`.
    pub events_left_out: u64,
    /// How many of each type; types that do not occur are left out.
    pub event_types: BTreeMap<&'static str, u64>,
    /// From the first event to the last; `None` where only an order is known, or there are no events.
    pub span: Option<Span>,
    /// How many sessions; `None` where no event has one.
    pub sessions: Option<u64>,
    /// How many users.
    pub users: u64,
    /// How many of them have at least one event.
    pub users_with_events: u64,
    /// Events of a user who has any.
    pub events_per_user: Option<Quantiles>,
    /// Which demographics are known.
    pub demographics: Demography,
    /// How many items.
    pub items: u64,
    /// How many of them have at least one event.
    pub items_with_events: u64,
    /// Their interests.
    pub interests: Interests,
    /// How many items have a price.
    pub items_with_price: u64,
    /// How many items have a title.
    pub items_with_title: u64,
    /// How many items have a content embedding.
    pub items_with_embedding: u64,
    /// The length of every content embedding.
    pub embedding_dimension: Option<usize>,
    /// The ads.
    pub ads: Advertising,
}

/// A stretch of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// The first event, in ms since 1970-01-01 UTC.
    pub first_ms: i64,
    /// The last event.
    pub last_ms: i64,
    /// The day of the first event in UTC, as `2026-01-05`.
    pub first_day: String,
    /// The day of the last event.
    pub last_day: String,
}

/// Values below which a share of the whole lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Quantiles {
    /// The least.
    pub min: u64,
    /// The median.
    pub p50: u64,
    /// Nine tenths are at most this.
    pub p90: u64,
    /// 99 of 100 are at most this.
    pub p99: u64,
    /// The greatest.
    pub max: u64,
}

/// Users of whom something is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Demography {
    /// How many have an age.
    pub age: u64,
    /// How many have a country.
    pub country: u64,
    /// How many have a gender.
    pub gender: u64,
}

/// The interests of the items.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interests {
    /// How many different ones.
    pub distinct: u64,
    /// How many items have none.
    pub items_without: u64,
    /// Interests per item, over all items.
    pub per_item: f64,
}

/// The ads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advertising {
    /// `ads file`, or `every item` where there is none.
    pub source: &'static str,
    /// How many ads.
    pub count: u64,
    /// How many of them may be shown.
    pub active: u64,
    /// Different items that they promote.
    pub items: u64,
    /// The kind of each targeting attribute.
    pub attributes: BTreeMap<Box<str>, AttributeKind>,
}

impl Profile {
    /// Surveys `dataset`, whose ads come from `ads_source`. O(n) in all its rows.
    pub(crate) fn of(dataset: &Dataset, events_left_out: u64, ads_source: &'static str) -> Self {
        let events = dataset.events();
        let mut counts = [0u64; EventType::ALL.len()];
        let mut is_seen = vec![false; dataset.items.len()];
        for row in events {
            counts[row.kind as usize] += 1;
            is_seen[row.item as usize] = true;
        }
        let per_user: Vec<u64> = (0..dataset.users.len() as u32)
            .map(|user| dataset.events_of(user).len() as u64)
            .filter(|events| *events > 0)
            .collect();
        let types = EventType::ALL.into_iter().map(|kind| (kind.name(), counts[kind as usize]));
        Self {
            events: events.len() as u64,
            events_left_out,
            event_types: types.filter(|(_, count)| *count > 0).collect(),
            span: span(dataset),
            sessions: events.iter().filter_map(|row| row.session).max().map(|last| u64::from(last) + 1),
            users: dataset.users.len() as u64,
            users_with_events: per_user.len() as u64,
            events_per_user: quantiles(per_user),
            demographics: demography(&dataset.users),
            items: dataset.items.len() as u64,
            items_with_events: is_seen.into_iter().filter(|seen| *seen).count() as u64,
            interests: interests(&dataset.items),
            items_with_price: count(&dataset.items, |item| item.price.is_some()),
            items_with_title: count(&dataset.items, |item| item.title.is_some()),
            items_with_embedding: count(&dataset.items, |item| item.embedding.is_some()),
            embedding_dimension: dataset.items.iter().find_map(|item| item.embedding.as_ref().map(Vec::len)),
            ads: advertising(dataset, ads_source),
        }
    }
}

fn count<T>(all: &[T], is_counted: impl Fn(&T) -> bool) -> u64 {
    all.iter().filter(|one| is_counted(one)).count() as u64
}

fn span(dataset: &Dataset) -> Option<Span> {
    if dataset.clock == Clock::Order {
        return None;
    }
    let times = || dataset.events().iter().map(|row| row.at);
    let (first_ms, last_ms) = (times().min()?, times().max()?);
    Some(Span { first_ms, last_ms, first_day: day(first_ms), last_day: day(last_ms) })
}

/// The UTC day of a time, or the bare number where no calendar reaches.
fn day(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => time.strftime("%Y-%m-%d").to_string(),
        Err(_) => format!("{ms} ms"),
    }
}

fn quantiles(mut values: Vec<u64>) -> Option<Quantiles> {
    values.sort_unstable();
    let last = values.len().checked_sub(1)?;
    let at = |percent: usize| values[last * percent / 100];
    Some(Quantiles { min: values[0], p50: at(50), p90: at(90), p99: at(99), max: values[last] })
}

fn demography(users: &[User]) -> Demography {
    Demography {
        age: count(users, |user| user.demographics.age.is_some()),
        country: count(users, |user| user.demographics.country.is_some()),
        gender: count(users, |user| user.demographics.gender.is_some()),
    }
}

fn interests(items: &[Item]) -> Interests {
    let all = || items.iter().flat_map(|item| &item.interests);
    Interests {
        distinct: all().map(|interest| interest.id.as_str()).collect::<HashSet<_>>().len() as u64,
        items_without: count(items, |item| item.interests.is_empty()),
        per_item: all().count() as f64 / items.len().max(1) as f64,
    }
}

fn advertising(dataset: &Dataset, source: &'static str) -> Advertising {
    let mut attributes = BTreeMap::new();
    for (name, value) in dataset.ads.iter().flat_map(|ad| &ad.attributes) {
        if !attributes.contains_key(name) {
            attributes.insert(name.clone(), Attribute::kind(value));
        }
    }
    Advertising {
        source,
        count: dataset.ads.len() as u64,
        active: count(&dataset.ads, |ad| ad.is_active()),
        items: dataset.ads.iter().map(|ad| ad.item.as_str()).collect::<HashSet<_>>().len() as u64,
        attributes,
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let types: Vec<String> = self.event_types.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        writeln!(f, "events       {}{}", self.events, listed(": ", &types))?;
        if self.events_left_out > 0 {
            writeln!(
                f,
                "             {} more are left out: before `from`, or not before `until`",
                self.events_left_out
            )?;
        }
        match &self.span {
            Some(span) => writeln!(f, "time         {} to {} (UTC)", span.first_day, span.last_day)?,
            None => writeln!(f, "time         order only")?,
        }
        match self.sessions {
            Some(sessions) => writeln!(f, "sessions     {sessions}")?,
            None => writeln!(f, "sessions     none")?,
        }
        writeln!(f, "users        {}, {} with events", self.users, self.users_with_events)?;
        if let Some(Quantiles { min, p50, p90, p99, max }) = self.events_per_user {
            writeln!(f, "             events each: min {min}, p50 {p50}, p90 {p90}, p99 {p99}, max {max}")?;
        }
        let known = |count: u64| 100.0 * count as f64 / self.users.max(1) as f64;
        let Demography { age, country, gender } = self.demographics;
        let (age, country, gender) = (known(age), known(country), known(gender));
        writeln!(f, "             age known of {age:.1} %, country of {country:.1} %, gender of {gender:.1} %")?;
        writeln!(f, "items        {}, {} with events", self.items, self.items_with_events)?;
        let Interests { distinct, items_without, per_item } = self.interests;
        writeln!(
            f,
            "             interests: {distinct} distinct, {per_item:.2} per item, {items_without} items without"
        )?;
        let (price, title) = (self.items_with_price, self.items_with_title);
        write!(f, "             {price} with a price, {title} with a title")?;
        match self.embedding_dimension {
            Some(dimension) => writeln!(f, ", {} with an embedding of {dimension}", self.items_with_embedding)?,
            None => writeln!(f)?,
        }
        let Advertising { source, count, active, items, attributes } = &self.ads;
        writeln!(f, "ads          {count} ({source}), {active} active, of {items} items")?;
        let attributes: Vec<String> =
            attributes.iter().map(|(name, kind)| format!("{name} ({})", kind_name(*kind))).collect();
        write!(
            f,
            "             attributes: {}",
            if attributes.is_empty() { "none".to_owned() } else { attributes.join(", ") }
        )
    }
}

fn listed(before: &str, parts: &[String]) -> String {
    if parts.is_empty() { String::new() } else { format!("{before}{}", parts.join(", ")) }
}

fn kind_name(kind: AttributeKind) -> &'static str {
    match kind {
        AttributeKind::Keyword => "keyword",
        AttributeKind::Keywords => "keywords",
        AttributeKind::Number => "number",
    }
}
