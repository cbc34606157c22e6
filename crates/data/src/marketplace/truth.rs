//! What was planted, for those who look for it.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::browsing::{ADDS_TO_CART, CHECKS_OUT, CONSIDERED, FOLLOWS_INTENT, FROM_INTERESTS, FROM_TRENDS, SIGNS_UP};
use super::catalogue::{AT_HOME, PAUSED};
use super::impressions::{CLICKED, CONVERTED, MISPLACED, OFF_INTENT, RELATED_PINS, REQUESTED};
use super::people::{FADING, NEW_INTEREST};
use super::sheet::{Cell, Sheet, Type};
use super::taste::{BY_PRICE, BY_QUALITY, BY_STYLE};
use super::taxonomy::Leaf;
use super::world::World;
use super::{GenerateError, Generated, MarketplaceSettings, TRUTH};

/// Raised when the same settings give another marketplace than before.
const WORLD_VERSION: u32 = 2;

#[derive(Serialize)]
struct Manifest<'a> {
    world_version: u32,
    settings: &'a MarketplaceSettings,
    made: &'a Generated,
    planted: Planted,
    /// The leaves in fashion, day by day.
    trends: Vec<Vec<String>>,
}

/// Probabilities and weights; `docs/data.md` says of what.
#[derive(Serialize)]
struct Planted {
    event_follows_intent: f64,
    intent_from_interests: f64,
    intent_from_trends: f64,
    intent_of_the_moment: f64,
    add_to_cart: f64,
    checkout: f64,
    signup: f64,
    items_considered: usize,
    appeal_of_style: f64,
    appeal_of_quality: f64,
    appeal_of_price: f64,
    interest_fades: f64,
    user_gains_interest: f64,
    ad_in_home_root: f64,
    ad_paused: f64,
    trip_requested: f64,
    request_related_pins: f64,
    delivered_misplaced: f64,
    clicked: f64,
    clicked_off_intent: f64,
    converted: f64,
}

const PLANTED: Planted = Planted {
    event_follows_intent: FOLLOWS_INTENT,
    intent_from_interests: FROM_INTERESTS,
    intent_from_trends: FROM_TRENDS,
    intent_of_the_moment: 1.0 - FROM_INTERESTS - FROM_TRENDS,
    add_to_cart: ADDS_TO_CART,
    checkout: CHECKS_OUT,
    signup: SIGNS_UP,
    items_considered: CONSIDERED,
    appeal_of_style: BY_STYLE,
    appeal_of_quality: BY_QUALITY,
    appeal_of_price: BY_PRICE,
    interest_fades: FADING,
    user_gains_interest: NEW_INTEREST,
    ad_in_home_root: AT_HOME,
    ad_paused: PAUSED,
    trip_requested: REQUESTED,
    request_related_pins: RELATED_PINS,
    delivered_misplaced: MISPLACED,
    clicked: CLICKED,
    clicked_off_intent: OFF_INTENT,
    converted: CONVERTED,
};

/// Writes the taxonomy and the manifest.
pub(super) fn write(world: &World, made: &Generated, dir: &Path) -> Result<(), GenerateError> {
    let dir = dir.join(TRUTH);
    let mut taxonomy = Sheet::create(
        &dir.join("taxonomy.parquet"),
        &[("interest_id", Type::Text), ("root", Type::Text), ("words", Type::Text), ("popularity", Type::Real)],
    )?;
    let total: f64 = world.popularity.iter().sum();
    for leaf in Leaf::all() {
        let popularity = (world.popularity[leaf.index()] / total) as f32;
        let (id, words) = (leaf.id(), leaf.words());
        taxonomy.row(&[Cell::Text(&id), Cell::Text(leaf.root_name()), Cell::Text(&words), Cell::Real(popularity)])?;
    }
    taxonomy.finish()?;
    let day = |day| world.trends(day).iter().map(|leaf| leaf.id()).collect();
    let manifest = Manifest {
        world_version: WORLD_VERSION,
        settings: &world.settings,
        made,
        planted: PLANTED,
        trends: (0..world.settings.days).map(day).collect(),
    };
    let path = dir.join("manifest.json");
    let text = serde_json::to_string_pretty(&manifest).expect("a manifest is strings and finite numbers");
    fs::write(&path, text + "\n").map_err(|source| GenerateError::Io { path, source })
}
