//! Interests, in the several forms in which files hold them.
//!
//! A list of structs of an `id` and a `confidence`; or, with a confidence of 1, a list of ids, or a single id.

use std::collections::HashSet;

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use turret_retrieval::ids::InterestId;
use turret_retrieval::item::{INTERESTS_MAX, Interest, InterestsError};

use crate::columns::{IdArray, NumberArray, is_id, is_number};
use crate::fault::{Faults, ReadError};
use crate::intern::RawId;
use crate::lists::{self, Lists};
use crate::table::Cells;

/// Whether a column of type `found` can hold interests.
pub(crate) fn accepts(found: &DataType) -> bool {
    match lists::element(found) {
        None => is_id(found),
        Some(DataType::Struct(fields)) => {
            let is = |name: &str, accepted: fn(&DataType) -> bool| {
                fields.iter().filter(|field| field.name() == name && accepted(field.data_type())).count() == 1
            };
            is("id", is_id) && is("confidence", is_number)
        }
        Some(element) => is_id(element),
    }
}

/// A column of interests.
pub(crate) enum InterestArray {
    /// One id a row.
    Single(IdArray),
    /// A list of ids a row.
    Ids(Lists, IdArray),
    /// A list of ids and confidences a row.
    Weighted(Lists, IdArray, NumberArray),
}

impl InterestArray {
    pub(crate) fn new(array: &dyn Array) -> Self {
        if lists::element(array.data_type()).is_none() {
            return Self::Single(IdArray::new(array));
        }
        let lists = Lists::new(array);
        let Some(structs) = lists.elements().as_struct_opt() else {
            let ids = IdArray::new(lists.elements());
            return Self::Ids(lists, ids);
        };
        let field = |name| structs.column_by_name(name).expect("`accepts` asks for both fields");
        let (ids, confidences) = (IdArray::new(field("id")), NumberArray::new(field("confidence")));
        Self::Weighted(lists, ids, confidences)
    }
}

impl Cells<'_, InterestArray> {
    /// The interests in `row`; none where it is null, or faulty.
    pub(crate) fn get(&self, row: usize, faults: &mut Faults) -> Result<Vec<Interest>, ReadError> {
        let found = match &self.array {
            InterestArray::Single(ids) => match ids.get(row) {
                Some(id) => interest(0, Some(id), Some(1.0)).map(|interest| vec![interest]),
                None => Ok(Vec::new()),
            },
            InterestArray::Ids(lists, ids) => gather(lists, row, |element| (ids.get(element), Some(1.0))),
            InterestArray::Weighted(lists, ids, confidences) => {
                gather(lists, row, |element| (ids.get(element), confidences.get(element)))
            }
        };
        match found {
            Ok(interests) => Ok(interests),
            Err(rule) => {
                faults.add(self.at(row), rule)?;
                Ok(Vec::new())
            }
        }
    }
}

/// The interests of a list; one that is there twice counts once, with its higher confidence.
fn gather<'a>(
    lists: &Lists,
    row: usize,
    element: impl Fn(usize) -> (Option<RawId<'a>>, Option<f64>),
) -> Result<Vec<Interest>, String> {
    let Some(range) = lists.get(row) else { return Ok(Vec::new()) };
    let mut interests: Vec<Interest> = Vec::with_capacity(range.len().min(INTERESTS_MAX));
    for (position, (id, confidence)) in range.clone().map(&element).enumerate() {
        let found = interest(position, id, confidence)?;
        match interests.iter_mut().find(|known| known.id == found.id) {
            Some(known) => known.confidence = known.confidence.max(found.confidence),
            None => interests.push(found),
        }
        if interests.len() > INTERESTS_MAX {
            let ids: HashSet<_> = range.filter_map(|at| element(at).0).map(RawId::text).collect();
            return Err(InterestsError::TooMany { found: ids.len() }.to_string());
        }
    }
    Ok(interests)
}

fn interest(position: usize, id: Option<RawId<'_>>, confidence: Option<f64>) -> Result<Interest, String> {
    let id = id.ok_or_else(|| format!("the id of interest {position} must not be null"))?;
    let confidence = confidence.ok_or_else(|| format!("the confidence of interest {position} must not be null"))?;
    let id = InterestId::new(&id.text()).map_err(|rule| format!("the id of interest {position} {rule}"))?;
    let found = confidence as f32;
    // Written so that NaN fails too.
    if !(found > 0.0 && found <= 1.0) {
        return Err(InterestsError::Confidence { position, found }.to_string());
    }
    Ok(Interest { id, confidence: found })
}
