//! Items and the ads that promote them, and choosing among them.

use std::ops::ControlFlow;
use std::path::Path;

use super::chance::{Chance, Stream, Weights, exp};
use super::sheet::{Cell, Sheet, Type};
use super::taste::Character;
use super::taxonomy::{ADJECTIVES, LEAVES, LEAVES_PER_ROOT, Leaf};
use super::world::{COUNTRIES, World, any_leaf};
use super::{GenerateError, TRUTH};
use crate::progress::Counter;

/// The share of ads that are paused.
pub(super) const PAUSED: f64 = 0.04;
/// The share of ads in their advertiser's home root.
pub(super) const AT_HOME: f64 = 0.8;
/// The most interests of one item.
const INTERESTS_MAX: usize = 3;
/// Rows between two looks at the caller's wish to stop.
const STEP_ROWS: u32 = 4_096;

/// An item as it is.
pub(super) struct Item {
    pub(super) advertiser: Option<u32>,
    /// What it truly is about, the first foremost; weights in (0, 1].
    pub(super) truth: Vec<(Leaf, f32)>,
    /// What the catalogue says it is about; confidences in (0, 1].
    pub(super) interests: Vec<(Leaf, f32)>,
    /// What it is like, which the catalogue does not say.
    pub(super) character: Character,
    /// As a natural logarithm.
    price_level: f64,
    title: String,
}

impl Item {
    /// The item of a number. Needs nothing but the world, so items need not be kept.
    pub(super) fn of(world: &World, number: u32) -> Self {
        let chance = &mut Chance::of(world.settings.seed, Stream::Item, u64::from(number));
        let advertiser = world.is_promoted(number).then(|| world.advertiser_sizes.pick(chance) as u32);
        let leaf = match advertiser.map(|number| world.advertiser(number)) {
            Some(advertiser) if chance.is(AT_HOME) => world.leaf_of(advertiser.home, chance),
            Some(_) | None => world.popular_leaf(chance),
        };
        let truth = true_interests(leaf, chance);
        let of_advertiser = advertiser.map_or(0.0, |number| world.advertiser(number).price_level);
        let price_position = of_advertiser + 0.4 * chance.normal();
        let price_level = world.price_levels[leaf.index()] + price_position;
        let adjective = ADJECTIVES[chance.below(ADJECTIVES.len() as u32) as usize];
        let title = format!("{}{} {}", adjective[..1].to_uppercase(), &adjective[1..], leaf.words());
        let interests = observed(&truth, chance);
        Self { advertiser, truth, interests, character: Character::of(price_position, chance), price_level, title }
    }

    /// Its foremost interest.
    pub(super) fn leaf(&self) -> Leaf {
        self.truth[0].0
    }

    /// To the cent.
    fn price(&self) -> f32 {
        ((exp(self.price_level) * 100.0).round() / 100.0) as f32
    }
}

/// To three decimals, and never 0.
fn rounded(weight: f64) -> f32 {
    ((weight * 1_000.0).round().max(1.0) / 1_000.0) as f32
}

fn true_interests(leaf: Leaf, chance: &mut Chance) -> Vec<(Leaf, f32)> {
    let mut truth = vec![(leaf, 1.0)];
    let others = [0, 1, 1, 2][chance.below(4) as usize];
    for _ in 0..others {
        let other = match chance.is(0.7) {
            true => Leaf::of(leaf.root(), chance.below(LEAVES_PER_ROOT as u32) as usize),
            false => any_leaf(chance),
        };
        if truth.iter().all(|(leaf, _)| *leaf != other) {
            truth.push((other, rounded(chance.between(0.2, 0.7))));
        }
    }
    truth
}

/// What a classifier makes of the truth: noised confidences, some interests missed, some imagined.
fn observed(truth: &[(Leaf, f32)], chance: &mut Chance) -> Vec<(Leaf, f32)> {
    let mut interests = vec![(truth[0].0, rounded((1.0 - 0.15 * chance.normal().abs()).max(0.3)))];
    for (leaf, weight) in &truth[1..] {
        let noised = f64::from(*weight) * (1.0 + 0.25 * chance.normal());
        if !chance.is(0.1) {
            interests.push((*leaf, rounded(noised.clamp(0.05, 1.0))));
        }
    }
    let imagined = any_leaf(chance);
    if chance.is(0.08) && interests.len() < INTERESTS_MAX && interests.iter().all(|(leaf, _)| *leaf != imagined) {
        interests.push((imagined, rounded(chance.between(0.1, 0.4))));
    }
    interests
}

/// An ad as it is; ad `i` promotes item `i`.
pub(super) struct Ad {
    pub(super) is_paused: bool,
    countries: Vec<&'static str>,
    min_age: i64,
}

impl Ad {
    pub(super) fn of(world: &World, number: u32) -> Self {
        let chance = &mut Chance::of(world.settings.seed, Stream::Ad, u64::from(number));
        let is_paused = chance.is(PAUSED);
        let mut countries: Vec<&str> = COUNTRIES.iter().map(|(country, _)| *country).collect();
        if !chance.is(0.3) {
            // The larger a country, the likelier it is among those that an ad is for.
            let first = countries[Weights::new(COUNTRIES.map(|(_, share)| share)).pick(chance)];
            let share = chance.between(0.1, 0.7);
            countries.retain(|country| *country == first || chance.is(share));
        }
        let min_age = [0, 0, 0, 0, 0, 0, 0, 18, 18, 21][chance.below(10) as usize];
        Self { is_paused, countries, min_age }
    }
}

/// Every item by leaf, most popular first, and what it is like.
pub(super) struct Stock {
    by_leaf: Vec<Vec<u32>>,
    characters: Vec<Character>,
    /// What stands in for a leaf without items, and itself for one with.
    stand_ins: Vec<Leaf>,
    ranks: Weights,
}

impl Stock {
    fn new(world: &World, mut by_leaf: Vec<Vec<u32>>, characters: Vec<Character>) -> Self {
        for (leaf, items) in by_leaf.iter_mut().enumerate() {
            Chance::of(world.settings.seed, Stream::LeafOrder, leaf as u64).shuffle(items);
        }
        let stand_in = |leaf: Leaf| {
            let siblings =
                (0..LEAVES_PER_ROOT).map(|step| Leaf::of(leaf.root(), (leaf.position() + step) % LEAVES_PER_ROOT));
            let found = siblings.chain(Leaf::all()).find(|leaf| !by_leaf[leaf.index()].is_empty());
            found.expect("a marketplace has at least one item")
        };
        let stand_ins = Leaf::all().map(stand_in).collect();
        let longest = by_leaf.iter().map(Vec::len).max().expect("there are leaves");
        let ranks = Weights::new((0..longest).map(|rank| 1.0 / (rank as f64 + 1.0)));
        Self { by_leaf, characters, stand_ins, ranks }
    }

    /// An item of `leaf`: the second most popular is chosen half as often as the first, and so on.
    pub(super) fn pick(&self, leaf: Leaf, chance: &mut Chance) -> u32 {
        let items = &self.by_leaf[self.stand_ins[leaf.index()].index()];
        items[self.ranks.pick_among(items.len(), chance)]
    }

    /// What an item is like.
    pub(super) fn character(&self, item: u32) -> &Character {
        &self.characters[item as usize]
    }
}

/// Writes the items, their truth and the ads, and returns what is for sale.
pub(super) fn write(world: &World, dir: &Path, counter: &mut Counter<'_, '_>) -> Result<Stock, GenerateError> {
    let mut items = Sheet::create(
        &dir.join("items.parquet"),
        &[
            ("item_id", Type::Text),
            ("advertiser_id", Type::OptionalText),
            ("interests", Type::Interests),
            ("price", Type::Real),
            ("title", Type::Text),
        ],
    )?;
    let mut truth = Sheet::create(
        &dir.join(TRUTH).join("items.parquet"),
        &[
            ("item_id", Type::Text),
            ("interests", Type::Interests),
            ("style", Type::Reals),
            ("quality", Type::Real),
            ("price_position", Type::Real),
        ],
    )?;
    let mut ads = Sheet::create(
        &dir.join("ads.parquet"),
        &[
            ("ad_id", Type::Text),
            ("item_id", Type::Text),
            ("advertiser_id", Type::Text),
            ("status", Type::Text),
            ("countries", Type::Words),
            ("min_age", Type::Whole),
        ],
    )?;
    let mut by_leaf = vec![Vec::new(); LEAVES];
    let mut characters = Vec::new();
    for number in 0..world.items() {
        let item = Item::of(world, number);
        by_leaf[item.leaf().index()].push(number);
        characters.push(item.character);
        let id = item_id(number);
        let advertiser = item.advertiser.map(|advertiser| format!("adv{advertiser}"));
        let advertiser_cell = advertiser.as_deref().map_or(Cell::Null, Cell::Text);
        items.row(&[
            Cell::Text(&id),
            advertiser_cell,
            Cell::Interests(&item.interests),
            Cell::Real(item.price()),
            Cell::Text(&item.title),
        ])?;
        truth.row(&[
            Cell::Text(&id),
            Cell::Interests(&item.truth),
            Cell::Reals(&item.character.style),
            Cell::Real(item.character.quality),
            Cell::Real(item.character.price_position),
        ])?;
        if let Some(advertiser) = &advertiser {
            let ad = Ad::of(world, number);
            ads.row(&[
                Cell::Text(&ad_id(number)),
                Cell::Text(&id),
                Cell::Text(advertiser),
                Cell::Text(if ad.is_paused { "paused" } else { "active" }),
                Cell::Words(&ad.countries),
                Cell::Whole(ad.min_age),
            ])?;
        }
        let is_step = (number + 1).is_multiple_of(STEP_ROWS);
        if is_step && counter.add(u64::from(STEP_ROWS), "items.parquet") == ControlFlow::Break(()) {
            return Err(GenerateError::Interrupted);
        }
    }
    if counter.add(u64::from(world.items() % STEP_ROWS), "items.parquet") == ControlFlow::Break(()) {
        return Err(GenerateError::Interrupted);
    }
    items.finish()?;
    truth.finish()?;
    ads.finish()?;
    Ok(Stock::new(world, by_leaf, characters))
}

/// The id of an item.
pub(super) fn item_id(number: u32) -> String {
    format!("item{number}")
}

/// The id of an ad.
pub(super) fn ad_id(number: u32) -> String {
    format!("ad{number}")
}
