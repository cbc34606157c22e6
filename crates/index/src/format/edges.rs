//! The section of the graph: what made it, the vector where walks begin, and the edges of that point and of each row.

use super::sink::Body;
use crate::graph::{Adjacency, LIBRARY, Made, NOT_LINKED};

/// Numbers before the vector of the start: the library's name in six, degree, build list, alpha, dimension, degree of the
/// start, and zeros.
const HEAD: usize = 16;
const NAME: usize = 6;

/// The beginning of the section.
pub(crate) fn write_head(body: &mut Body<'_>, made: Made, start: &[f32], edges: &[u32]) -> std::io::Result<()> {
    let mut words = [0; HEAD];
    words[..NAME].copy_from_slice(&library());
    words[NAME..NAME + 5].copy_from_slice(&[
        made.degree,
        made.build_list,
        made.alpha.to_bits(),
        start.len() as u32,
        edges.len() as u32,
    ]);
    put(body, &words)?;
    put(body, &start.iter().map(|x| x.to_bits()).collect::<Vec<_>>())?;
    put(body, edges)
}

/// Adds the edges of rows.
pub(crate) fn put(body: &mut Body<'_>, words: &[u32]) -> std::io::Result<()> {
    body.put(&words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>())
}

/// The name of the library, in numbers of four letters.
fn library() -> [u32; NAME] {
    let mut letters = [0; NAME * 4];
    letters[..LIBRARY.len()].copy_from_slice(LIBRARY.as_bytes());
    let mut words = [0; NAME];
    let (chunks, _) = letters.as_chunks::<4>();
    words.iter_mut().zip(chunks).for_each(|(word, letters)| *word = u32::from_le_bytes(*letters));
    words
}

/// Why the edges are of no use here, though nothing is wrong with them; else the edges.
pub(super) type Usable = Result<Adjacency, String>;

pub(super) fn read(mut words: Vec<u32>, rows: usize, dimension: usize, wanted: Made) -> Result<Usable, String> {
    let Some((head, rest)) = words.split_first_chunk::<HEAD>() else { return Err("ends too early".to_owned()) };
    if head[..NAME] != library() {
        return Ok(Err(format!("it was not made by {LIBRARY}")));
    }
    let made = Made { degree: head[NAME], build_list: head[NAME + 1], alpha: f32::from_bits(head[NAME + 2]) };
    if made != wanted {
        return Ok(Err(format!("it was made with {made:?}, configured is {wanted:?}")));
    }
    let (of, start_degree) = (head[NAME + 3] as usize, head[NAME + 4] as usize);
    if of != dimension {
        return Err(format!("dimension {of}, the shard's is {dimension}"));
    }
    if start_degree > made.degree_max() || rest.len() < dimension + start_degree {
        return Err(format!("{start_degree} edges of the start"));
    }
    let start: Box<[f32]> = rest[..dimension].iter().map(|bits| f32::from_bits(*bits)).collect();
    if let Some(at) = start.iter().position(|x| !x.is_finite()) {
        return Err(format!("component {at} of the start is not finite"));
    }
    words.drain(..HEAD + dimension);
    let mut targets = Targets { seen: vec![0; rows], lists: 0 };
    if !targets.are_sound(&words[..start_degree]) {
        return Err(format!("two edges of the start lead to one row, or one beyond row {rows}"));
    }
    let (mut at, mut begins) = (start_degree, Vec::with_capacity(rows));
    for row in 0..rows {
        begins.push(u32::try_from(at).map_err(|_| "more edges than can be counted".to_owned())?);
        let degree = *words.get(at).ok_or_else(|| format!("ends before row {row}"))?;
        at += 1;
        if degree == NOT_LINKED {
            continue;
        }
        let edges = words.get(at..at.saturating_add(degree as usize)).ok_or_else(|| format!("ends in row {row}"))?;
        if edges.len() > made.degree_max() || !targets.are_sound(edges) {
            return Err(format!("row {row} has {degree} edges, two of them to one row, or one beyond row {rows}"));
        }
        at += edges.len();
    }
    if at != words.len() {
        return Err(format!("{} numbers too long", words.len() - at));
    }
    Ok(Ok(Adjacency { start, words, start_degree, rows: begins }))
}

/// Where edges of one list after the other lead.
struct Targets {
    /// The last list that leads to each row.
    seen: Vec<u32>,
    lists: u32,
}

impl Targets {
    /// Whether a list leads to rows that are there, and to none twice, which the library would not bear.
    fn are_sound(&mut self, edges: &[u32]) -> bool {
        self.lists += 1;
        edges.iter().all(|to| {
            let seen = self.seen.get_mut(*to as usize);
            seen.is_some_and(|seen| std::mem::replace(seen, self.lists) != self.lists)
        })
    }
}
