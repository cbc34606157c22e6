//! The ads file: what is promoted, by whom, and to whom it may be shown.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::Array;
use turret_retrieval::attribute_schema::{
    ATTRIBUTES_MAX, AttributeRule, WORDS_MAX, check_kind, check_name, check_together, check_value, kind_of,
};
use turret_retrieval::ids::{AdId, AdvertiserId, ItemId};
use turret_retrieval::item::{Ad, Attribute, AttributeKind, Item};

use crate::columns::{IdArray, Kind, NumberArray, WholeArray};
use crate::fault::{At, Faults, ReadError};
use crate::intern::{Interned, Interner};
use crate::items::Catalogue;
use crate::lists::Lists;
use crate::progress::Counter;
use crate::table::{Batch, Cells, Column, Need, Table};

/// Where there is no ads file: every item is an ad under its own id.
pub(crate) fn every_item(items: &[Item]) -> Vec<Ad> {
    let ad = |item: &Item| {
        let advertiser = item.advertiser.as_ref();
        let attribute = |id: &AdvertiserId| ("advertiser_id".into(), Attribute::Keyword(id.as_str().into()));
        Ad {
            id: AdId::new(item.id.as_str()).expect("all kinds of id obey the same rules"),
            item: item.id.clone(),
            attributes: advertiser.map(attribute).into_iter().collect(),
        }
    };
    items.iter().map(ad).collect()
}

/// One column that becomes an attribute.
struct AttributeColumn {
    attribute: Box<str>,
    column: Column,
    kind: Kind,
}

/// Reads the ads file.
pub(crate) fn read(
    mut table: Table<'_>,
    catalogue: &mut Catalogue,
    faults: &mut Faults,
    counter: &mut Counter<'_, '_>,
) -> Result<Vec<Ad>, ReadError> {
    let ad_id = table.choose("ad_id", Kind::Id, Need::Required, faults)?;
    let item_id = table.choose("item_id", Kind::Id, Need::Required, faults)?;
    let advertiser_id = table.choose("advertiser_id", Kind::Id, Need::Required, faults)?;
    let status = table.choose("status", Kind::Word, Need::Required, faults)?;
    let attributes = choose_attributes(&mut table, faults)?;
    let (Some(ad_id), Some(item_id)) = (ad_id, item_id) else { return Ok(Vec::new()) };
    let required: Vec<AttributeColumn> = [("advertiser_id", advertiser_id, Kind::Id), ("status", status, Kind::Word)]
        .into_iter()
        .filter_map(|(name, column, kind)| Some(AttributeColumn { attribute: name.into(), column: column?, kind }))
        .collect();
    let mut ads = Vec::new();
    let mut rows = Interner::default();
    table.for_each_batch(faults, counter, |batch, faults| {
        let (ids, items) = (batch.ids(&ad_id), batch.ids(&item_id));
        let required: Vec<_> = required.iter().map(|column| (column, Values::new(batch, column))).collect();
        let optional: Vec<_> = attributes.iter().map(|column| (column, Values::new(batch, column))).collect();
        for row in 0..batch.rows() {
            let Some(id) = new_id(&ids, row, &mut rows, faults)? else { continue };
            let Some(item) = item_of(&items, row, catalogue, faults)? else { continue };
            let mut attributes = BTreeMap::new();
            for (column, values) in &required {
                match values.get(&column.attribute, row, faults)? {
                    Found::Value(value) => drop(attributes.insert(column.attribute.clone(), value)),
                    Found::Null => faults.add(values.at(row), "must not be null")?,
                    Found::Faulty => {}
                }
            }
            for (column, values) in &optional {
                if let Found::Value(value) = values.get(&column.attribute, row, faults)? {
                    attributes.insert(column.attribute.clone(), value);
                }
            }
            match check_together(&attributes) {
                Ok(()) => ads.push(Ad { id, item, attributes }),
                Err(error) => faults.add(batch.at_row(row), error)?,
            }
        }
        Ok(())
    })?;
    Ok(ads)
}

/// Chooses every column that is not one of the four required: each becomes an attribute of the kind of its type.
fn choose_attributes(table: &mut Table<'_>, faults: &mut Faults) -> Result<Vec<AttributeColumn>, ReadError> {
    let own = ["ad_id", "item_id", "advertiser_id", "status"];
    let taken: BTreeSet<&str> = own.iter().map(|name| table.name_of(name)).chain(table.mapped_names()).collect();
    let mapped = table.mapped_canonicals().filter(|canonical| !own.contains(canonical));
    let unmapped = table.schema().map(|(name, _)| name).filter(|name| !taken.contains(name));
    let wanted: Vec<String> = mapped.chain(unmapped).map(str::to_owned).collect();
    if wanted.len() > ATTRIBUTES_MAX {
        let rule = format_args!("has {} attribute columns, the limit is {ATTRIBUTES_MAX}", wanted.len()).to_string();
        faults.add(At::file(table.file), rule)?;
    }
    let mut columns = Vec::new();
    let mut names = BTreeSet::new();
    for attribute in wanted.into_iter().take(ATTRIBUTES_MAX) {
        let name = table.name_of(&attribute).to_owned();
        let at = At::column(table.file, &name);
        if let Err(rule) = check_name(&attribute) {
            faults.add(at, rule.of(&attribute))?;
        } else if !names.insert(attribute.clone()) {
            faults.add(at, format_args!("two columns give the attribute `{attribute}`"))?;
        } else if let Some(column) = choose_attribute(table, &attribute, faults)? {
            columns.push(column);
        }
    }
    Ok(columns)
}

/// What an attribute is whose name is the caller's own.
const BY_TYPE: [(Kind, AttributeKind); 3] = [
    (Kind::Word, AttributeKind::Keyword),
    (Kind::Words, AttributeKind::Keywords),
    (Kind::Number, AttributeKind::Number),
];

/// Chooses the column of one attribute: as its well-known name says, else of the kind of its type.
fn choose_attribute(
    table: &mut Table<'_>,
    attribute: &str,
    faults: &mut Faults,
) -> Result<Option<AttributeColumn>, ReadError> {
    let name = table.name_of(attribute).to_owned();
    let type_of = table.schema().find(|(there, _)| *there == name).map(|(_, found)| found.clone());
    let is_of = |kind: Kind| type_of.as_ref().is_some_and(|found| kind.accepts(found));
    let by_type = BY_TYPE.into_iter().find(|(kind, _)| is_of(*kind));
    let kind = match (attribute, kind_of(attribute)) {
        (_, Some(AttributeKind::Keyword)) => Kind::Id,
        (_, Some(AttributeKind::Keywords)) => Kind::Ids,
        ("starts_at" | "ends_at", _) => Kind::Time,
        (_, Some(AttributeKind::Number)) => Kind::Number,
        (_, None) => by_type.map_or(Kind::Attribute, |(kind, _)| kind),
    };
    let other = by_type.filter(|_| !is_of(kind));
    if let Some(rule) = other.and_then(|(_, found)| check_kind(attribute, found).err()) {
        faults.add(At::column(table.file, &name), rule.of(attribute))?;
        return Ok(None);
    }
    let column = table.choose(attribute, kind, Need::Optional, faults)?;
    Ok(column.map(|column| {
        let kind = if kind == Kind::Time && !table.is_timestamp(&column) { Kind::Number } else { kind };
        AttributeColumn { attribute: attribute.into(), column, kind }
    }))
}

fn new_id(
    ids: &Cells<'_, IdArray>,
    row: usize,
    rows: &mut Interner,
    faults: &mut Faults,
) -> Result<Option<AdId>, ReadError> {
    let Some(id) = ids.required(row, faults)? else { return Ok(None) };
    let made = rows.intern(id).and_then(|interned| Ok((interned, AdId::new(&id.text())?)));
    match made {
        Ok((Interned::New(_), id)) => Ok(Some(id)),
        Ok((Interned::Known(_), id)) => {
            faults.add(ids.at(row), format_args!("`{id}` is there twice"))?;
            Ok(None)
        }
        Err(rule) => {
            faults.add(ids.at(row), rule)?;
            Ok(None)
        }
    }
}

fn item_of(
    items: &Cells<'_, IdArray>,
    row: usize,
    catalogue: &mut Catalogue,
    faults: &mut Faults,
) -> Result<Option<ItemId>, ReadError> {
    let Some(id) = items.required(row, faults)? else { return Ok(None) };
    match catalogue.row_of(id) {
        Ok(position) => Ok(Some(catalogue.items[position as usize].id.clone())),
        Err(rule) => {
            faults.add(items.at(row), rule)?;
            Ok(None)
        }
    }
}

/// The values of an attribute column in a batch.
enum Values<'a> {
    Word(Cells<'a, IdArray>),
    Words(Cells<'a, Lists>, IdArray),
    Number(Cells<'a, NumberArray>),
    /// Timestamps, which become seconds.
    Time(Cells<'a, WholeArray>),
}

enum Found {
    Value(Attribute),
    Null,
    Faulty,
}

impl<'a> Values<'a> {
    fn new(batch: &'a Batch<'_>, column: &'a AttributeColumn) -> Self {
        match column.kind {
            Kind::Number => Self::Number(batch.numbers(&column.column)),
            Kind::Time => Self::Time(batch.whole_numbers(&column.column)),
            Kind::Words | Kind::Ids => {
                let lists = batch.lists(&column.column);
                let words = IdArray::new(lists.array.elements() as &dyn Array);
                Self::Words(lists, words)
            }
            Kind::Id | Kind::Text | Kind::Whole | Kind::Interests | Kind::Vector | Kind::Word | Kind::Attribute => {
                Self::Word(batch.ids(&column.column))
            }
        }
    }

    fn at(&self, row: usize) -> At<'_> {
        match self {
            Self::Word(cells) => cells.at(row),
            Self::Words(cells, _) => cells.at(row),
            Self::Number(cells) => cells.at(row),
            Self::Time(cells) => cells.at(row),
        }
    }

    fn get(&self, name: &str, row: usize, faults: &mut Faults) -> Result<Found, ReadError> {
        let value = match self {
            Self::Word(cells) => cells.array.get(row).map(|id| Ok(Attribute::Keyword(id.text().into()))),
            Self::Words(cells, elements) => cells.array.get(row).map(|range| words(elements, range)),
            Self::Number(cells) => cells.array.get(row).map(|number| Ok(Attribute::Number(number))),
            Self::Time(cells) => match cells.array.get(row) {
                Ok(milliseconds) => milliseconds.map(|ms| Ok(Attribute::Number(ms as f64 / 1_000.0))),
                Err(rule) => Some(Err(rule.to_string())),
            },
        };
        let Some(value) = value else { return Ok(Found::Null) };
        let checked = value.and_then(|value| match check_value(name, &value) {
            Ok(()) => Ok(value),
            Err(rule) => Err(rule.to_string()),
        });
        match checked {
            Ok(value) => Ok(Found::Value(value)),
            Err(rule) => faults.add(self.at(row), rule).map(|()| Found::Faulty),
        }
    }
}

fn words(elements: &IdArray, range: std::ops::Range<usize>) -> Result<Attribute, String> {
    if range.len() > WORDS_MAX {
        return Err(AttributeRule::TooManyWords { found: range.len() }.to_string());
    }
    let word = |(position, element)| match elements.get(element) {
        Some(id) => Ok(id.text().into()),
        None => Err(format!("word {position} must not be null")),
    };
    range.enumerate().map(word).collect::<Result<_, _>>().map(Attribute::Keywords)
}
