//! Ids to dense row numbers.

use std::borrow::Cow;
use std::collections::HashMap;

use turret_retrieval::ids::{EventId, IdError};

/// An id as a file holds it, not yet checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RawId<'a> {
    Integer(i64),
    /// An integer above `i64::MAX` is text too.
    Large(u64),
    Text(&'a str),
}

impl<'a> RawId<'a> {
    /// The id in words; checked only by whoever makes a typed id of it.
    pub(crate) fn text(self) -> Cow<'a, str> {
        match self {
            Self::Integer(number) => number.to_string().into(),
            Self::Large(number) => number.to_string().into(),
            Self::Text(text) => text.into(),
        }
    }

    /// The same id in the one form that an [`Interner`] keeps it in, so that `"7"` is hashed and stored as `7` is.
    pub(crate) fn canonical(self) -> Self {
        match self {
            Self::Text(text) => decimal(text).map_or(self, Self::Integer),
            Self::Integer(_) | Self::Large(_) => self,
        }
    }

    /// Checks the id against the rules that all kinds of id share.
    pub(crate) fn check(self) -> Result<(), IdError> {
        match self {
            Self::Integer(_) | Self::Large(_) => Ok(()),
            Self::Text(text) => EventId::new(text).map(drop),
        }
    }
}

/// Whether an id was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interned {
    Known(u32),
    New(u32),
}

impl Interned {
    pub(crate) fn row(self) -> u32 {
        match self {
            Self::Known(row) | Self::New(row) => row,
        }
    }
}

/// Numbers ids from 0 in the order in which they come. `7` and `"7"` are one id.
///
/// Integers, and texts that are the decimal form of one, are kept as integers, which saves hashing and storing text.
#[derive(Default)]
pub(crate) struct Interner {
    integers: HashMap<i64, u32>,
    texts: HashMap<Box<str>, u32>,
}

enum Key<'a> {
    Integer(i64),
    Text(Cow<'a, str>),
}

impl Interner {
    /// The row of `id`, which is a new one where the id is.
    ///
    /// # Errors
    /// The rule that a new id breaks.
    pub(crate) fn intern(&mut self, id: RawId<'_>) -> Result<Interned, IdError> {
        let next = u32::try_from(self.integers.len() + self.texts.len())
            .expect("two files at most, of fewer than 2^31 rows each, name ids of one kind");
        match key(id) {
            Key::Integer(number) => match self.integers.entry(number) {
                std::collections::hash_map::Entry::Occupied(known) => Ok(Interned::Known(*known.get())),
                std::collections::hash_map::Entry::Vacant(new) => Ok(Interned::New(*new.insert(next))),
            },
            Key::Text(text) => {
                if let Some(row) = self.texts.get(&*text) {
                    return Ok(Interned::Known(*row));
                }
                RawId::Text(&text).check()?;
                self.texts.insert(text.into(), next);
                Ok(Interned::New(next))
            }
        }
    }

    /// The row of `id`, if it has one.
    pub(crate) fn get(&self, id: RawId<'_>) -> Option<u32> {
        match key(id) {
            Key::Integer(number) => self.integers.get(&number).copied(),
            Key::Text(text) => self.texts.get(&*text).copied(),
        }
    }
}

fn key(id: RawId<'_>) -> Key<'_> {
    match id {
        RawId::Integer(number) => Key::Integer(number),
        RawId::Large(_) => Key::Text(id.text()),
        RawId::Text(text) => decimal(text).map_or(Key::Text(Cow::Borrowed(text)), Key::Integer),
    }
}

/// The integer whose decimal form is exactly `text`.
fn decimal(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    let is_plain = match digits {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if is_plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_text_is_an_integer_exactly_where_it_is_written_like_one(number: i64, text in "[-+0-9]{1,20}") {
            prop_assert_eq!(decimal(&number.to_string()), Some(number));
            let expected = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
            prop_assert_eq!(decimal(&text), expected);
        }
    }

    #[test]
    fn an_integer_and_its_decimal_text_share_a_row() {
        let mut rows = Interner::default();
        let mut row = |id| rows.intern(id).unwrap();
        assert_eq!(row(RawId::Integer(7)), Interned::New(0));
        assert_eq!(row(RawId::Text("7")), Interned::Known(0));
        assert_eq!(row(RawId::Text("-3")), Interned::New(1));
        assert_eq!(row(RawId::Integer(-3)), Interned::Known(1));
        assert_eq!(row(RawId::Large(u64::MAX)), Interned::New(2));
        assert_eq!(row(RawId::Text("18446744073709551615")), Interned::Known(2));
        for (number, other) in ["07", "-0", "+7", "7 ", "-", "seven"].into_iter().enumerate() {
            assert_eq!(row(RawId::Text(other)), Interned::New(3 + number as u32), "{other}");
        }
        assert_eq!(rows.get(RawId::Text("07")), Some(3));
        assert_eq!(rows.get(RawId::Integer(8)), None);
    }

    #[test]
    fn a_bad_id_gets_no_row() {
        let mut rows = Interner::default();
        assert_eq!(rows.intern(RawId::Text("")), Err(IdError::Empty));
        assert_eq!(rows.intern(RawId::Text(&"x".repeat(129))), Err(IdError::TooLong { bytes: 129 }));
        assert_eq!(rows.intern(RawId::Text("a")), Ok(Interned::New(0)));
    }
}
