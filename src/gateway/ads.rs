//! `/v1/ads/{id}`: ads that change while the index serves, and `/pause`, `/resume` below it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use turret_actors::live_ads::{AD_BYTES_MAX, AdsUnavailable};
use turret_actors::protocol::Refusal;
use turret_retrieval::attribute_schema::{
    AttributeError, AttributeRule, STATUS, check_together, check_value, ordered_pairs,
};
use turret_retrieval::ids::{AdId, AdvertiserId, ItemId};
use turret_retrieval::item::{Ad, Attribute, AttributeKind, Interest, Item, check_interests};
use turret_retrieval::live_ad::{AdChange, AttributePatch, Content, LiveAd, Promoted};
use turret_retrieval::revision::Revision;

use super::Gateway;
use super::body::{bytes, read};
use super::problem::Problem;

/// The longest title, in bytes.
const TITLE_BYTES_MAX: usize = 1_024;

/// The ad that a path names.
pub(super) struct AdPath(AdId);

impl<S: Send + Sync> FromRequestParts<S> for AdPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        let Path(ad) = path.map_err(|_| Problem::invalid("ad_id", "must be UTF-8"))?;
        AdId::new(&ad).map(Self).map_err(|error| Problem::invalid("ad_id", error.to_string()))
    }
}

/// An ad with the item that it promotes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdBody {
    item: ItemBody,
    #[serde(default)]
    attributes: BTreeMap<Box<str>, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemBody {
    id: ItemId,
    #[serde(default)]
    advertiser_id: Option<AdvertiserId>,
    #[serde(default)]
    interests: Vec<Interest>,
    #[serde(default)]
    price: Option<f32>,
    #[serde(default)]
    title: Option<String>,
}

/// Some attributes of an ad.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PatchBody {
    attributes: BTreeMap<Box<str>, Value>,
}

/// What became of a change.
#[derive(Serialize)]
struct Changed {
    ad_id: AdId,
    revision: Revision,
    /// Whether searches see it already; 202 where they do not yet.
    visible: bool,
}

/// Makes the ad this, whatever it was before: embedded by the ad tower that serves, and by the next one when that is
/// published.
pub(super) async fn put(
    State(gateway): State<Arc<Gateway>>,
    AdPath(id): AdPath,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body: AdBody = read(Ok(bounded(body)?))?;
    let kinds = &gateway.node.retriever.table().manifest.attributes;
    let promoted = promoted(id.clone(), body, kinds)?;
    change(&gateway, id, AdChange::Upsert(Box::new(promoted))).await
}

/// Changes some attributes of the ad, and nothing else of it; a name whose value is `null` is taken from it.
pub(super) async fn patch(
    State(gateway): State<Arc<Gateway>>,
    AdPath(id): AdPath,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let PatchBody { attributes } = read(Ok(bounded(body)?))?;
    let kinds = &gateway.node.retriever.table().manifest.attributes;
    let patch = patch_of(attributes, kinds)?;
    change(&gateway, id, AdChange::Patch(patch)).await
}

/// Removes the ad.
pub(super) async fn delete(State(gateway): State<Arc<Gateway>>, AdPath(id): AdPath) -> Result<Response, Problem> {
    change(&gateway, id, AdChange::Delete).await
}

/// Hides the ad until it is resumed, whatever is upserted or published meanwhile.
pub(super) async fn pause(State(gateway): State<Arc<Gateway>>, AdPath(id): AdPath) -> Result<Response, Problem> {
    change(&gateway, id, AdChange::Pause(true)).await
}

/// Shows the ad again.
pub(super) async fn resume(State(gateway): State<Arc<Gateway>>, AdPath(id): AdPath) -> Result<Response, Problem> {
    change(&gateway, id, AdChange::Pause(false)).await
}

fn bounded(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Problem> {
    let body = bytes(body)?;
    if body.len() > AD_BYTES_MAX {
        return Err(Problem::invalid("body", format!("is larger than {AD_BYTES_MAX} bytes")));
    }
    Ok(body)
}

async fn change(gateway: &Gateway, id: AdId, change: AdChange) -> Result<Response, Problem> {
    let changed = gateway.node.ads.change(id.clone(), change).await?;
    let status = if changed.visible { StatusCode::OK } else { StatusCode::ACCEPTED };
    let body = Changed { ad_id: id, revision: changed.revision, visible: changed.visible };
    Ok((status, Json(body)).into_response())
}

/// What changes said of an ad.
#[derive(Serialize)]
pub(super) struct Known {
    ad_id: AdId,
    /// `as_built`: it is in the index as that was built, if at all.
    content: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    promoted: Option<Box<Promoted>>,
    /// With `patched`: the attributes that are not as built; `null` for one that was taken away.
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<BTreeMap<Box<str>, Value>>,
    content_revision: Revision,
    paused: bool,
    paused_revision: Revision,
}

pub(super) async fn get(State(gateway): State<Arc<Gateway>>, AdPath(id): AdPath) -> Result<Json<Known>, Problem> {
    let ad = gateway.node.ads.get(id.clone()).await?.unwrap_or_else(|| LiveAd::untouched(id));
    let (content, promoted, attributes) = match ad.content {
        Content::AsBuilt => ("as_built", None, None),
        Content::Is(promoted) => ("changed", Some(promoted), None),
        Content::Deleted => ("deleted", None, None),
        Content::Patched(patch) => ("patched", None, Some(patch.into_iter().map(shown).collect())),
    };
    Ok(Json(Known {
        ad_id: ad.id,
        content,
        promoted,
        attributes,
        content_revision: ad.content_at,
        paused: ad.paused,
        paused_revision: ad.paused_at,
    }))
}

/// Where a page of changed ads starts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    /// Behind this revision.
    #[serde(default)]
    after: Revision,
}

/// A page of the ads that changed, for who builds the next index.
#[derive(Serialize)]
pub(super) struct Page {
    ads: Vec<LiveAd>,
}

pub(super) async fn page(
    State(gateway): State<Arc<Gateway>>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let Query(query) = query.map_err(|rejection| Problem::invalid("query", rejection.body_text()))?;
    Ok(Json(Page { ads: gateway.node.ads.since(query.after).await? }))
}

impl From<AdsUnavailable> for Problem {
    fn from(error: AdsUnavailable) -> Self {
        let detail = error.to_string();
        match error.0 {
            Refusal::Conflict(_) => Self::new(StatusCode::CONFLICT, "conflict", detail),
            Refusal::Unreadable(_)
            | Refusal::OtherVersion { .. }
            | Refusal::Overloaded
            | Refusal::Expired
            | Refusal::Starting
            | Refusal::Failed(_)
            | Refusal::Unreachable(_)
            | Refusal::NotFinite => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "ads_unavailable", detail).retry_after(1)
            }
        }
    }
}

/// Checks everything that the types could not.
fn promoted(id: AdId, body: AdBody, kinds: &BTreeMap<Box<str>, AttributeKind>) -> Result<Promoted, Problem> {
    let AdBody { item, attributes } = body;
    check_interests(&item.interests).map_err(|error| Problem::invalid("item.interests", error.to_string()))?;
    if item.price.is_some_and(|price| !(price.is_finite() && price >= 0.0)) {
        return Err(Problem::invalid("item.price", "must be finite and not negative"));
    }
    if item.title.as_ref().is_some_and(|title| title.len() > TITLE_BYTES_MAX) {
        return Err(Problem::invalid("item.title", format!("is longer than {TITLE_BYTES_MAX} bytes")));
    }
    let attributes = attributes
        .into_iter()
        .map(|(name, value)| {
            let value = attribute_of(&name, value, kinds)?;
            Ok((name, value))
        })
        .collect::<Result<_, Problem>>()?;
    check_together(&attributes).map_err(broken)?;
    let ad = Ad { id, item: item.id.clone(), attributes };
    let ItemBody { id, advertiser_id: advertiser, interests, price, title } = item;
    Ok(Promoted { ad, item: Item { id, advertiser, interests, price, title, embedding: None } })
}

/// The attributes that a patch sets, and those that it takes away.
fn patch_of(
    attributes: BTreeMap<Box<str>, Value>,
    kinds: &BTreeMap<Box<str>, AttributeKind>,
) -> Result<AttributePatch, Problem> {
    let of = |name: &str, rule: &str| Problem::invalid(format!("attributes.{name}"), rule);
    if attributes.is_empty() {
        return Err(Problem::invalid("attributes", "must name one at least"));
    }
    if attributes.contains_key(STATUS) {
        return Err(of(STATUS, "is no attribute to patch: pause and resume the ad, or put it whole"));
    }
    // What the ad has of a pair is known where it was built alone.
    let parted = |(low, high): &(&str, &str)| attributes.contains_key(*low) != attributes.contains_key(*high);
    if let Some((low, high)) = ordered_pairs().find(parted) {
        let (given, other) = if attributes.contains_key(low) { (low, high) } else { (high, low) };
        return Err(of(given, &format!("is patched together with `{other}`, which may be null")));
    }
    let patch = attributes.into_iter().map(|(name, value)| {
        let is_taken = value.is_null() && kinds.contains_key(&name);
        let value = if is_taken { None } else { Some(attribute_of(&name, value, kinds)?) };
        Ok((name, value))
    });
    let patch = patch.collect::<Result<AttributePatch, Problem>>()?;
    check_together(&patch.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect())
        .map_err(broken)?;
    Ok(patch)
}

/// The value of an attribute of this index.
fn attribute_of(name: &str, value: Value, kinds: &BTreeMap<Box<str>, AttributeKind>) -> Result<Attribute, Problem> {
    let broken = |rule: String| Problem::invalid(format!("attributes.{name}"), rule);
    let kind = kinds.get(name).ok_or_else(|| broken("is not an attribute of this index".to_owned()))?;
    let value = attribute(value).ok_or_else(|| broken("must be a word, a list of words or a number".to_owned()))?;
    check_attribute(name, &value, *kind).map_err(|rule| broken(rule.to_string()))?;
    Ok(value)
}

fn broken(error: AttributeError) -> Problem {
    Problem::invalid(format!("attributes.{}", error.name), error.rule.to_string())
}

fn shown((name, value): (Box<str>, Option<Attribute>)) -> (Box<str>, Value) {
    let value = match value {
        None => Value::Null,
        Some(Attribute::Keyword(word)) => word.to_string().into(),
        Some(Attribute::Keywords(words)) => words.iter().map(|word| word.to_string()).collect(),
        Some(Attribute::Number(number)) => number.into(),
    };
    (name, value)
}

/// Checks an attribute of a generation where the name has values of `expected`.
fn check_attribute(name: &str, value: &Attribute, expected: AttributeKind) -> Result<(), AttributeRule> {
    let found = value.kind();
    if found == expected { check_value(name, value) } else { Err(AttributeRule::Kind { expected, found }) }
}

/// The attribute that a JSON value is, whatever its name; absent where it is none.
fn attribute(value: Value) -> Option<Attribute> {
    let word = |value: Value| if let Value::String(word) = value { Some(word.into()) } else { None };
    match value {
        Value::Number(number) => number.as_f64().map(Attribute::Number),
        Value::Array(values) => values.into_iter().map(word).collect::<Option<_>>().map(Attribute::Keywords),
        Value::String(word) => Some(Attribute::Keyword(word.into())),
        Value::Null | Value::Bool(_) | Value::Object(_) => None,
    }
}
