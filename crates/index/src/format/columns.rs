//! The section of attributes: the postings as they are searched, so that a shard opens without indexing anything.
//!
//! Column after column: postcard of its name and kind, then of every word with the rows that have it as a portable roaring
//! bitmap, until none follows; or the number of numbers, and each with its row.

use std::collections::{BTreeMap, HashMap};
use std::io;

use roaring::RoaringBitmap;
use turret_retrieval::item::AttributeKind;

use super::decode::Bytes;
use super::sink::Body;
use crate::attributes::{Postings, Segment};
use crate::bits::Bits;

/// The kind of each attribute, by name.
type Kinds = BTreeMap<Box<str>, AttributeKind>;

/// Writes the postings of the rows that have a place, as places, which ascend with the rows.
pub(crate) fn write(
    body: &mut Body<'_>,
    postings: &Postings,
    kinds: &Kinds,
    place: impl Fn(u32) -> Option<u32>,
) -> io::Result<()> {
    for (name, kind) in kinds {
        // Attributes that no ad has any more are left out.
        let head = postcard::to_stdvec(&(name, kind)).map_err(io::Error::other)?;
        match kind {
            AttributeKind::Number => {
                let numbers: Vec<(f64, u32)> =
                    postings.numbers(name).filter_map(|(number, row)| Some((number, place(row)?))).collect();
                if !numbers.is_empty() {
                    body.put(&head)?;
                    body.put(&(numbers.len() as u32).to_le_bytes())?;
                }
                for (number, row) in numbers {
                    body.put(&number.to_bits().to_le_bytes())?;
                    body.put(&row.to_le_bytes())?;
                }
            }
            AttributeKind::Keyword | AttributeKind::Keywords => write_words(body, &head, postings, name, &place)?,
        }
    }
    Ok(())
}

fn write_words(
    body: &mut Body<'_>,
    head: &[u8],
    postings: &Postings,
    name: &str,
    place: impl Fn(u32) -> Option<u32>,
) -> io::Result<()> {
    let mut is_begun = false;
    for word in postings.words_of(name) {
        let rows: RoaringBitmap = postings.with_word(name, word).iter().filter_map(&place).collect();
        if rows.is_empty() {
            continue;
        }
        if !std::mem::replace(&mut is_begun, true) {
            body.put(head)?;
        }
        let mut bitmap = Vec::with_capacity(rows.serialized_size());
        rows.serialize_into(&mut bitmap)?;
        body.put(&postcard::to_stdvec(&Some((word, &*bitmap))).map_err(io::Error::other)?)?;
    }
    if is_begun { body.put(&[0]) } else { Ok(()) }
}

pub(super) fn read(bytes: &[u8], rows: usize) -> Result<(Segment, Kinds), String> {
    let mut bytes = Bytes(bytes);
    let (mut words, mut numbers, mut kinds) = (BTreeMap::new(), BTreeMap::new(), Kinds::new());
    while !bytes.is_empty() {
        let (name, kind): (Box<str>, AttributeKind) = bytes.value(&format!("attribute {}", kinds.len()))?;
        let of_name = |rule: String| format!("attribute {name}: {rule}");
        if kinds.insert(name.clone(), kind).is_some() {
            return Err(of_name("is there twice".to_owned()));
        }
        match kind {
            AttributeKind::Number => {
                let column = read_numbers(&mut bytes, rows).map_err(of_name)?;
                numbers.insert(name, column);
            }
            AttributeKind::Keyword | AttributeKind::Keywords => {
                let column = read_words(&mut bytes, rows).map_err(of_name)?;
                words.insert(name, column);
            }
        }
    }
    Ok((Segment::of_columns(rows as u32, words, numbers), kinds))
}

fn read_numbers(bytes: &mut Bytes<'_>, rows: usize) -> Result<Vec<(f64, u32)>, String> {
    let count = bytes.u32()? as usize;
    if count > rows {
        return Err(format!("{count} numbers for {rows} rows"));
    }
    let (mut numbers, mut seen) = (Vec::with_capacity(count), Bits::none(rows));
    for _ in 0..count {
        let (number, row) = (f64::from_bits(bytes.u64()?), bytes.u32()?);
        if !number.is_finite() || row as usize >= rows {
            return Err(format!("number {number} of row {row}, of {rows}"));
        }
        if seen.has(row) {
            return Err(format!("row {row} has two numbers"));
        }
        seen.set(row);
        numbers.push((number, row));
    }
    Ok(numbers)
}

fn read_words(bytes: &mut Bytes<'_>, rows: usize) -> Result<HashMap<Box<str>, RoaringBitmap>, String> {
    let mut column = HashMap::new();
    while let Some((word, bitmap)) = bytes.value::<Option<(&str, &[u8])>>("a word")? {
        let of_word = RoaringBitmap::deserialize_from(bitmap).map_err(|error| format!("rows of a word: {error}"))?;
        // Nobody writes them. Most work on runs is slow, and without them it takes a thousand times the memory of the file.
        if of_word.statistics().n_run_containers > 0 {
            return Err(format!("word {word} has its rows in runs"));
        }
        if of_word.max().is_some_and(|row| row as usize >= rows) {
            return Err(format!("word {word} is of a row beyond {rows}"));
        }
        if column.insert(word.into(), of_word).is_some() {
            return Err(format!("word {word} is there twice"));
        }
    }
    Ok(column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_in_runs_are_refused_before_they_take_memory() {
        let mut rows: RoaringBitmap = (0..1 << 20).collect();
        let of = |rows: &RoaringBitmap| {
            let mut bitmap = Vec::new();
            rows.serialize_into(&mut bitmap).unwrap();
            let mut bytes = postcard::to_stdvec(&("half", AttributeKind::Keyword)).unwrap();
            bytes.extend(postcard::to_stdvec(&Some(("yes", &*bitmap))).unwrap());
            bytes.push(0);
            (bytes.len(), read(&bytes, 1 << 20).map(|_| ()))
        };
        assert_eq!(of(&rows).1, Ok(()));
        rows.optimize();
        let (length, outcome) = of(&rows);
        assert_eq!(outcome.unwrap_err(), "attribute half: word yes has its rows in runs");
        assert!(length < 1_000);
    }
}
