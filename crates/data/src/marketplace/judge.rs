//! Judging by what was planted: what no model was told, read from `truth/`.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::ControlFlow;
use std::path::Path;

use arrow::array::Array;
use turret_retrieval::ids::{IdError, InterestId, ItemId, RequestId, UserId};
use turret_retrieval::item::Interest;

use super::impressions::{click_probability, conversion_probability, request_id};
use super::taste::{Character, STYLES, Taste};
use crate::columns::{IdArray, Kind, NumberArray};
use crate::fault::{Faults, ReadError};
use crate::lists::Lists;
use crate::progress::{Counter, Progress};
use crate::source::Columns;
use crate::table::{Cells, Column, Need, Table};

/// The files of `truth/` that are read.
const FILES: [&str; 3] = ["truth/items.parquet", "truth/users.parquet", "truth/trips.parquet"];
/// Why [`Table::choose`] finds every column.
const REFUSED: &str = "where the first fault ends the reading, what is absent is an error";

/// What was planted in a marketplace, to judge by; never to be trained on.
///
/// Answers `None` about what the marketplace does not have.
pub struct Truth {
    items: HashMap<ItemId, PlantedItem>,
    users: HashMap<UserId, Taste>,
    intents: HashMap<RequestId, InterestId>,
}

struct PlantedItem {
    interests: Vec<Interest>,
    character: Character,
}

impl Truth {
    /// Reads the truth of the marketplace in `dir`. Memory is proportional to its items, users and trips.
    ///
    /// # Errors
    /// The first fault, or [`ReadError::Interrupted`] where `progress` broke off.
    pub fn read(dir: &Path, progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>) -> Result<Self, ReadError> {
        let faults = &mut Faults::stop_at_first(dir);
        let mapping = Columns::new();
        let mut tables = Vec::with_capacity(FILES.len());
        for file in FILES {
            tables.push(Table::open(dir, file, &mapping, faults)?.expect(REFUSED));
        }
        let counter = &mut Counter::new(tables.iter().map(Table::rows).sum(), progress);
        let [items, users, trips] = <[Table<'_>; 3]>::try_from(tables).ok().expect("each of FILES was opened");
        Ok(Self {
            items: read_items(items, faults, counter)?,
            users: read_users(users, faults, counter)?,
            intents: read_intents(trips, faults, counter)?,
        })
    }

    /// How well an item suits a user by style, quality and price, in (0, 1); what it is about does not count.
    pub fn relevance(&self, user: &UserId, item: &ItemId) -> Option<f64> {
        Some(self.users.get(user)?.relevance(&self.items.get(item)?.character))
    }

    /// How likely `user` clicks on the ad of `item` where it is delivered for `request`, which is the user's.
    pub fn click_probability(&self, request: &RequestId, user: &UserId, item: &ItemId) -> Option<f64> {
        let (intent, planted) = (self.intents.get(request)?, self.items.get(item)?);
        let about = planted.interests.iter().find(|interest| interest.id == *intent);
        Some(click_probability(about.map(|interest| interest.confidence), self.relevance(user, item)?))
    }

    /// How likely a click of `user` on the ad of `item` is followed by a conversion.
    pub fn conversion_probability(&self, user: &UserId, item: &ItemId) -> Option<f64> {
        self.relevance(user, item).map(conversion_probability)
    }

    /// What an item is like.
    pub fn character(&self, item: &ItemId) -> Option<&Character> {
        Some(&self.items.get(item)?.character)
    }

    /// What a user likes.
    pub fn taste(&self, user: &UserId) -> Option<&Taste> {
        self.users.get(user)
    }

    /// What the user of a request was after.
    pub fn intent(&self, request: &RequestId) -> Option<&InterestId> {
        self.intents.get(request)
    }
}

fn read_items(
    mut table: Table<'_>,
    faults: &mut Faults,
    counter: &mut Counter<'_, '_>,
) -> Result<HashMap<ItemId, PlantedItem>, ReadError> {
    let item_id = choose(&mut table, "item_id", Kind::Id, faults)?;
    let interests = choose(&mut table, "interests", Kind::Interests, faults)?;
    let style = choose(&mut table, "style", Kind::Vector, faults)?;
    let quality = choose(&mut table, "quality", Kind::Number, faults)?;
    let price_position = choose(&mut table, "price_position", Kind::Number, faults)?;
    let mut items = HashMap::new();
    table.for_each_batch(faults, counter, |batch, faults| {
        let (ids, interests, styles) = (batch.ids(&item_id), batch.interests(&interests), batch.lists(&style));
        let (qualities, positions) = (batch.numbers(&quality), batch.numbers(&price_position));
        let components = NumberArray::new(styles.array.elements() as &dyn Array);
        for row in 0..batch.rows() {
            let character = Character {
                style: style_of(&styles, &components, row, faults)?,
                quality: number(&qualities, row, faults)?,
                price_position: number(&positions, row, faults)?,
            };
            let planted = PlantedItem { interests: interests.get(row, faults)?, character };
            items.extend(id(&ids, row, ItemId::new, faults)?.map(|id| (id, planted)));
        }
        Ok(())
    })?;
    Ok(items)
}

fn read_users(
    mut table: Table<'_>,
    faults: &mut Faults,
    counter: &mut Counter<'_, '_>,
) -> Result<HashMap<UserId, Taste>, ReadError> {
    let user_id = choose(&mut table, "user_id", Kind::Id, faults)?;
    let style = choose(&mut table, "style", Kind::Vector, faults)?;
    let price_position = choose(&mut table, "price_position", Kind::Number, faults)?;
    let mut users = HashMap::new();
    table.for_each_batch(faults, counter, |batch, faults| {
        let (ids, styles, positions) = (batch.ids(&user_id), batch.lists(&style), batch.numbers(&price_position));
        let components = NumberArray::new(styles.array.elements() as &dyn Array);
        for row in 0..batch.rows() {
            let taste = Taste {
                style: style_of(&styles, &components, row, faults)?,
                price_position: number(&positions, row, faults)?,
            };
            users.extend(id(&ids, row, UserId::new, faults)?.map(|id| (id, taste)));
        }
        Ok(())
    })?;
    Ok(users)
}

fn read_intents(
    mut table: Table<'_>,
    faults: &mut Faults,
    counter: &mut Counter<'_, '_>,
) -> Result<HashMap<RequestId, InterestId>, ReadError> {
    let session_id = choose(&mut table, "session_id", Kind::Id, faults)?;
    let intent = choose(&mut table, "intent", Kind::Id, faults)?;
    let mut intents = HashMap::new();
    table.for_each_batch(faults, counter, |batch, faults| {
        let (sessions, interests) = (batch.ids(&session_id), batch.ids(&intent));
        for row in 0..batch.rows() {
            let request = id(&sessions, row, |session| RequestId::new(&request_id(session)), faults)?;
            intents.extend(request.zip(id(&interests, row, InterestId::new, faults)?));
        }
        Ok(())
    })?;
    Ok(intents)
}

fn choose(table: &mut Table<'_>, name: &str, kind: Kind, faults: &mut Faults) -> Result<Column, ReadError> {
    Ok(table.choose(name, kind, Need::Required, faults)?.expect(REFUSED))
}

fn id<I: Hash + Eq>(
    ids: &Cells<'_, IdArray>,
    row: usize,
    make: fn(&str) -> Result<I, IdError>,
    faults: &mut Faults,
) -> Result<Option<I>, ReadError> {
    ids.required(row, faults)?;
    ids.optional(row, make, faults)
}

fn number(numbers: &Cells<'_, NumberArray>, row: usize, faults: &mut Faults) -> Result<f32, ReadError> {
    match numbers.array.get(row).map(|number| number as f32).filter(|number| number.is_finite()) {
        Some(number) => Ok(number),
        None => faults.add(numbers.at(row), "must be a finite number").map(|()| 0.0),
    }
}

fn style_of(
    styles: &Cells<'_, Lists>,
    components: &NumberArray,
    row: usize,
    faults: &mut Faults,
) -> Result<[f32; STYLES], ReadError> {
    let found: Vec<f32> = styles
        .array
        .get(row)
        .into_iter()
        .flatten()
        .filter_map(|at| components.get(at))
        .map(|number| number as f32)
        .collect();
    match <[f32; STYLES]>::try_from(found) {
        Ok(style) if style.iter().all(|component| component.is_finite()) => Ok(style),
        Ok(_) | Err(_) => {
            faults.add(styles.at(row), format_args!("must have {STYLES} finite components")).map(|()| [0.0; STYLES])
        }
    }
}
