//! The users file: who users are.

use turret_retrieval::user::{AGE_MAX, Demographics};

use crate::columns::{IdArray, Kind};
use crate::fault::{Faults, ReadError};
use crate::intern::{Interned, RawId};
use crate::progress::Counter;
use crate::table::{Cells, Need, Table};

/// The longest country or gender, in bytes of UTF-8.
const WORD_BYTES_MAX: usize = 16;

/// Walks the users file, giving every user of a sound id to `take`, which tells whether it was there before.
pub(crate) fn walk(
    mut table: Table<'_>,
    faults: &mut Faults,
    counter: &mut Counter<'_, '_>,
    take: &mut dyn FnMut(RawId<'_>, Demographics) -> Interned,
) -> Result<(), ReadError> {
    let user_id = table.choose("user_id", Kind::Id, Need::Required, faults)?;
    let age = table.choose("age", Kind::Whole, Need::Optional, faults)?;
    let country = table.choose("country", Kind::Id, Need::Optional, faults)?;
    let gender = table.choose("gender", Kind::Id, Need::Optional, faults)?;
    let Some(user_id) = user_id else { return Ok(()) };
    table.for_each_batch(faults, counter, |batch, faults| {
        let ids = batch.ids(&user_id);
        let ages = age.as_ref().map(|column| batch.whole_numbers(column));
        let countries = country.as_ref().map(|column| batch.ids(column));
        let genders = gender.as_ref().map(|column| batch.ids(column));
        for row in 0..batch.rows() {
            let Some(id) = ids.required(row, faults)? else { continue };
            if let Err(rule) = id.check() {
                faults.add(ids.at(row), rule)?;
                continue;
            }
            let mut demographics = Demographics::default();
            if let Some(ages) = &ages {
                let age = ages.within(row, 0..=i64::from(AGE_MAX), faults)?;
                demographics.age = age.map(|age| u8::try_from(age).expect("it is within 0..=AGE_MAX"));
            }
            if let Some(countries) = &countries {
                demographics.country = word(countries, row, faults)?;
            }
            if let Some(genders) = &genders {
                demographics.gender = word(genders, row, faults)?;
            }
            if let Interned::Known(_) = take(id, demographics) {
                faults.add(ids.at(row), format_args!("`{}` is there twice", id.text()))?;
            }
        }
        Ok(())
    })?;
    Ok(())
}

fn word(words: &Cells<'_, IdArray>, row: usize, faults: &mut Faults) -> Result<Option<Box<str>>, ReadError> {
    let Some(word) = words.array.get(row) else { return Ok(None) };
    let word = word.text();
    if !(1..=WORD_BYTES_MAX).contains(&word.len()) {
        let rule = format_args!("is {} bytes long, must be 1 to {WORD_BYTES_MAX}", word.len()).to_string();
        faults.add(words.at(row), rule)?;
        return Ok(None);
    }
    Ok(Some(word.into()))
}
