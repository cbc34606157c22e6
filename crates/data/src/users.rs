//! The users file, and the register of users that it begins.

use turret_retrieval::ids::{IdError, UserId};
use turret_retrieval::user::{AGE_MAX, Demographics, User};

use crate::columns::{IdArray, Kind};
use crate::fault::{Faults, ReadError};
use crate::intern::{Interned, Interner, RawId};
use crate::progress::Counter;
use crate::table::{Cells, Need, Table};

/// The longest country or gender, in bytes of UTF-8.
const WORD_BYTES_MAX: usize = 16;

/// Every user by their id. One that events name and the users file does not is added, with nothing known.
#[derive(Default)]
pub(crate) struct Register {
    pub(crate) users: Vec<User>,
    rows: Interner,
}

impl Register {
    /// The row of the user called `id`.
    pub(crate) fn row_of(&mut self, id: RawId<'_>) -> Result<u32, IdError> {
        let row = self.rows.intern(id)?;
        if let Interned::New(_) = row {
            self.users.push(User { id: UserId::new(&id.text())?, demographics: Demographics::default() });
        }
        Ok(row.row())
    }
}

/// Reads the users file.
pub(crate) fn read(
    mut table: Table<'_>,
    faults: &mut Faults,
    counter: &mut Counter<'_, '_>,
) -> Result<Register, ReadError> {
    let mut register = Register::default();
    let user_id = table.choose("user_id", Kind::Id, Need::Required, faults)?;
    let age = table.choose("age", Kind::Whole, Need::Optional, faults)?;
    let country = table.choose("country", Kind::Id, Need::Optional, faults)?;
    let gender = table.choose("gender", Kind::Id, Need::Optional, faults)?;
    let Some(user_id) = user_id else { return Ok(register) };
    table.for_each_batch(faults, counter, |batch, faults| {
        let ids = batch.ids(&user_id);
        let ages = age.as_ref().map(|column| batch.whole_numbers(column));
        let countries = country.as_ref().map(|column| batch.ids(column));
        let genders = gender.as_ref().map(|column| batch.ids(column));
        for row in 0..batch.rows() {
            let Some(id) = ids.required(row, faults)? else { continue };
            let known = register.users.len();
            let position = match register.row_of(id) {
                Ok(position) => position as usize,
                Err(rule) => {
                    faults.add(ids.at(row), rule)?;
                    continue;
                }
            };
            if position < known {
                faults.add(ids.at(row), format_args!("`{}` is there twice", id.text()))?;
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
            register.users[position].demographics = demographics;
        }
        Ok(())
    })?;
    Ok(register)
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
