//! The items file, and the catalogue that it fills.

use arrow::array::Array;
use turret_retrieval::ids::{AdvertiserId, IdError, ItemId};
use turret_retrieval::item::{INTERESTS_MAX, InterestsError, Item};

use crate::columns::{IdArray, Kind, NumberArray};
use crate::fault::{Faults, ReadError};
use crate::intern::{Interned, Interner, RawId};
use crate::lists::Lists;
use crate::progress::Counter;
use crate::source::RepeatedIds;
use crate::table::{Cells, Need, Table, Walked};

/// The longest title, in bytes of UTF-8.
const TITLE_BYTES_MAX: usize = 1_024;
/// The longest content embedding.
const EMBEDDING_MAX: usize = 4_096;

/// Every item by its id.
pub(crate) struct Catalogue {
    pub(crate) items: Vec<Item>,
    rows: Interner,
    /// Whether the items file has named every item, so that another one is a fault.
    is_complete: bool,
}

/// Why an item that another file names has no row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnknownItem {
    #[error("`{0}` is not in the items file")]
    Absent(String),
    #[error("{0}")]
    Id(IdError),
}

impl Catalogue {
    /// No items yet; those that are asked for are added.
    pub(crate) fn open() -> Self {
        Self { items: Vec::new(), rows: Interner::default(), is_complete: false }
    }

    /// The row of the item called `id`.
    pub(crate) fn row_of(&mut self, id: RawId<'_>) -> Result<u32, UnknownItem> {
        if self.is_complete {
            return self.rows.get(id).ok_or_else(|| UnknownItem::Absent(shortened(&id.text())));
        }
        let row = self.rows.intern(id).map_err(UnknownItem::Id)?;
        if let Interned::New(_) = row {
            self.items.push(bare(id).map_err(UnknownItem::Id)?);
        }
        Ok(row.row())
    }
}

/// An id as faults print it: whole where it could be one, else its beginning.
pub(crate) fn shortened(id: &str) -> String {
    match id.char_indices().nth(turret_retrieval::ids::ID_BYTES_MAX) {
        Some((end, _)) => format!("{}…", &id[..end]),
        None => id.to_owned(),
    }
}

fn bare(id: RawId<'_>) -> Result<Item, IdError> {
    Ok(Item {
        id: ItemId::new(&id.text())?,
        advertiser: None,
        interests: Vec::new(),
        price: None,
        title: None,
        embedding: None,
    })
}

/// Reads the items file. Where it is faulty, the catalogue stays open, so that one fault does not call forth others.
pub(crate) fn read(
    mut table: Table<'_>,
    repeated: RepeatedIds,
    faults: &mut Faults,
    counter: &mut Counter<'_, '_>,
) -> Result<Catalogue, ReadError> {
    let mut catalogue = Catalogue::open();
    let item_id = table.choose("item_id", Kind::Id, Need::Required, faults)?;
    let advertiser_id = table.choose("advertiser_id", Kind::Id, Need::Optional, faults)?;
    let interests = table.choose("interests", Kind::Interests, Need::Optional, faults)?;
    let price = table.choose("price", Kind::Number, Need::Optional, faults)?;
    let title = table.choose("title", Kind::Text, Need::Optional, faults)?;
    let embedding = table.choose("embedding", Kind::Vector, Need::Optional, faults)?;
    let Some(item_id) = item_id else { return Ok(catalogue) };
    let mut dimension = None;
    let mut is_complete = true;
    let walked = table.for_each_batch(faults, counter, |batch, faults| {
        let ids = batch.ids(&item_id);
        let advertisers = advertiser_id.as_ref().map(|column| batch.ids(column));
        let interests = interests.as_ref().map(|column| batch.interests(column));
        let prices = price.as_ref().map(|column| batch.numbers(column));
        let titles = title.as_ref().map(|column| batch.ids(column));
        let embeddings = embedding.as_ref().map(|column| batch.lists(column)).map(Embeddings::new);
        for row in 0..batch.rows() {
            let Some((place, mut item)) = bare_item(&ids, row, repeated, &mut catalogue, faults)? else {
                is_complete = false;
                continue;
            };
            if let Some(advertisers) = &advertisers {
                item.advertiser = advertisers.optional(row, AdvertiserId::new, faults)?;
            }
            if let Some(interests) = &interests {
                item.interests = interests.get(row, faults)?;
            }
            if let Some(prices) = &prices {
                item.price = price_of(prices, row, faults)?;
            }
            if let Some(titles) = &titles {
                item.title = title_of(titles, row, faults)?;
            }
            if let Some(embeddings) = &embeddings {
                item.embedding = embeddings.get(row, &mut dimension, faults)?;
            }
            match place {
                Interned::New(_) => catalogue.items.push(item),
                Interned::Known(known) => {
                    if let Err(rule) = join(&mut catalogue.items[known as usize], item) {
                        faults.add(ids.at(row), rule)?;
                    }
                }
            }
        }
        Ok(())
    })?;
    catalogue.is_complete = is_complete && walked == Walked::ToTheEnd;
    Ok(catalogue)
}

/// An item with nothing but an id, and its place in the catalogue; `None` where the id is faulty.
fn bare_item(
    ids: &Cells<'_, IdArray>,
    row: usize,
    repeated: RepeatedIds,
    catalogue: &mut Catalogue,
    faults: &mut Faults,
) -> Result<Option<(Interned, Item)>, ReadError> {
    let Some(id) = ids.required(row, faults)? else { return Ok(None) };
    match catalogue.rows.intern(id).and_then(|interned| Ok((interned, bare(id)?))) {
        Ok((Interned::Known(_), item)) if repeated == RepeatedIds::Refuse => {
            faults.add(ids.at(row), format_args!("`{}` is there twice", item.id))?;
            Ok(None)
        }
        Ok(placed) => Ok(Some(placed)),
        Err(rule) => {
            faults.add(ids.at(row), rule)?;
            Ok(None)
        }
    }
}

/// Adds to `item` what another row says of it: further interests, and what was unknown.
fn join(item: &mut Item, other: Item) -> Result<(), InterestsError> {
    for interest in other.interests {
        let count = item.interests.len();
        match item.interests.iter_mut().find(|known| known.id == interest.id) {
            Some(known) => known.confidence = known.confidence.max(interest.confidence),
            None if count == INTERESTS_MAX => {
                return Err(InterestsError::TooMany { found: INTERESTS_MAX + 1 });
            }
            None => item.interests.push(interest),
        }
    }
    item.advertiser = item.advertiser.take().or(other.advertiser);
    item.price = item.price.or(other.price);
    item.title = item.title.take().or(other.title);
    item.embedding = item.embedding.take().or(other.embedding);
    Ok(())
}

fn price_of(prices: &Cells<'_, NumberArray>, row: usize, faults: &mut Faults) -> Result<Option<f32>, ReadError> {
    let Some(price) = prices.array.get(row) else { return Ok(None) };
    let narrow = price as f32;
    if narrow.is_finite() && narrow >= 0.0 {
        return Ok(Some(narrow));
    }
    faults.add(prices.at(row), format_args!("{price} is not finite and at least 0"))?;
    Ok(None)
}

fn title_of(titles: &Cells<'_, IdArray>, row: usize, faults: &mut Faults) -> Result<Option<String>, ReadError> {
    let Some(title) = titles.array.text(row) else { return Ok(None) };
    if title.len() > TITLE_BYTES_MAX {
        faults.add(titles.at(row), format_args!("is {} bytes long, the limit is {TITLE_BYTES_MAX}", title.len()))?;
        return Ok(None);
    }
    Ok(Some(title.to_owned()))
}

/// A column of content embeddings.
struct Embeddings<'a> {
    lists: Cells<'a, Lists>,
    numbers: NumberArray,
}

impl<'a> Embeddings<'a> {
    fn new(lists: Cells<'a, Lists>) -> Self {
        let numbers = NumberArray::new(lists.array.elements() as &dyn Array);
        Self { lists, numbers }
    }

    /// The embedding in `row`, whose length is that of the first one in the file.
    fn get(
        &self,
        row: usize,
        dimension: &mut Option<usize>,
        faults: &mut Faults,
    ) -> Result<Option<Vec<f32>>, ReadError> {
        let Some(range) = self.lists.array.get(row) else { return Ok(None) };
        let at = self.lists.at(row);
        if !(1..=EMBEDDING_MAX).contains(&range.len()) {
            let rule = format_args!("has {} components, must have 1 to {EMBEDDING_MAX}", range.len()).to_string();
            return faults.add(at, rule).map(|()| None);
        }
        let expected = *dimension.get_or_insert(range.len());
        if range.len() != expected {
            let rule = format_args!("has {} components where others have {expected}", range.len()).to_string();
            return faults.add(at, rule).map(|()| None);
        }
        let mut components = Vec::with_capacity(expected);
        for (position, element) in range.enumerate() {
            match self.numbers.get(element).map(|component| component as f32) {
                Some(component) if component.is_finite() => components.push(component),
                Some(_) => return faults.add(at, format_args!("component {position} is not finite")).map(|()| None),
                None => return faults.add(at, format_args!("component {position} must not be null")).map(|()| None),
            }
        }
        if components.iter().all(|component| *component == 0.0) {
            return faults.add(at, "must not be all zeros").map(|()| None);
        }
        Ok(Some(components))
    }
}
