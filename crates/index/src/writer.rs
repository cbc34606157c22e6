//! What the one who changes a shard knows of it.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::{Arc, Weak};

use hashbrown::HashTable;
use roaring::RoaringBitmap;
use turret_retrieval::hashing::stable_hash;
use turret_retrieval::ids::AdId;
use turret_retrieval::item::{AttributeKind, Attributes, advertiser_of};
use turret_retrieval::live_ad::{AttributePatch, patch_attributes};
use turret_retrieval::revision::Revision;

use crate::attributes::Segment;
use crate::blocks::Blocks;
use crate::change::{Absent, ChangeError, Registers, ShardChange, ShardContent};
use crate::names::{Name, Names};
use crate::rows::{ADS_MAX, RowsError, ShardAd, check_attributes, check_unit, first_rows};
use crate::view::View;

mod patched;

pub(crate) use patched::Patched;

/// Segments are merged at once up to so many rows; the rest is left to upkeep.
const MERGED_ROWS_MAX: u64 = 256;
/// Of the table of rows.
const ID_SEED: u64 = 4;

/// Held by whoever makes the next view.
#[derive(Default)]
pub(crate) struct Writer {
    /// The rows of all ads, by id. A row costs five bytes here, its id again would cost fifty.
    by_id: HashTable<u32>,
    /// By row.
    registers: Blocks<Registers>,
    absent: Absent,
    /// Rows of ads, live or paused.
    pub(crate) present: RoaringBitmap,
    /// Rows that may be taken.
    pub(crate) free: RoaringBitmap,
    /// Rows that died, behind the eras in which they were seen, oldest first.
    dying: VecDeque<(Weak<()>, Vec<u32>)>,
    dying_rows: usize,
    /// The first so many segments are being merged by someone.
    pub(crate) kept_segments: usize,
}

/// What is to become of an ad.
struct Next {
    row: Option<u32>,
    before: Registers,
    registers: Registers,
    content: Content,
}

enum Content {
    Same,
    Is(Row),
    Nothing,
    Patched(AttributePatch),
}

impl Content {
    fn patch(&mut self, patch: AttributePatch) {
        match self {
            Self::Same => *self = Self::Patched(patch),
            Self::Patched(before) => before.extend(patch),
            Self::Is(row) => patch_attributes(&mut row.attributes, &patch),
            Self::Nothing => {}
        }
    }
}

/// What a row is to hold.
struct Row {
    attributes: Attributes,
    embedding: Box<[f32]>,
}

impl Row {
    fn of(ad: ShardAd) -> Self {
        Self { attributes: ad.ad.attributes, embedding: ad.embedding.as_slice().into() }
    }
}

impl Writer {
    /// The writer of rows of which all are ads; none of their ids is `absent`.
    ///
    /// # Errors
    /// The first row whose ad stands in one before it.
    pub(crate) fn new(names: &Names, registers: Blocks<Registers>, absent: Absent) -> Result<Self, u32> {
        let rows = registers.len() as u32;
        let mut writer = Self { registers, absent, present: first_rows(rows), ..Self::default() };
        writer.by_id.reserve(rows as usize, |row| hash(names.get(*row).id));
        for row in 0..rows {
            let id = names.get(row).id;
            if writer.by_id.find(hash(id), |other| names.get(*other).id == id).is_some() {
                return Err(row);
            }
            writer.name(row, names);
        }
        Ok(writer)
    }

    /// The rows of ads that are paused.
    pub(crate) fn paused(&self) -> RoaringBitmap {
        self.present.iter().filter(|row| self.registers.get(*row).paused).collect()
    }

    /// What it knows of each row's ad, and of ads that have none, as it is now.
    pub(crate) fn known(&self) -> (Blocks<Registers>, Absent) {
        (self.registers.clone(), self.absent.clone())
    }

    /// The next view; absent where there is no news in `changes`. What `patched` does not have, or was changed since, is read here.
    pub(crate) fn apply(
        &mut self,
        view: &View,
        changes: Vec<ShardChange>,
        patched: Patched,
    ) -> Result<Option<View>, ChangeError> {
        let mut ads = self.gathered(view, changes);
        if ads.is_empty() {
            return Ok(None);
        }
        patched.make(view, &mut ads)?;
        let kinds = self.checked(view, &ads)?;
        let mut next = view.clone();
        if kinds.len() > view.kinds.len() {
            next.kinds = Arc::new(kinds);
        }
        let (mut died, mut born) = (Vec::new(), Vec::new());
        for (id, ad) in ads {
            match (ad.content, ad.row) {
                (Content::Same, Some(row)) => {
                    self.registers.set(row, ad.registers);
                    show(&mut next, row, !ad.registers.paused);
                }
                (Content::Same, None) | (Content::Patched(_), _) => self.absent.insert(id, ad.registers),
                (Content::Nothing, row) => {
                    died.extend(row.inspect(|row| self.bury(*row, &mut next)));
                    self.absent.insert(id, ad.registers);
                }
                (Content::Is(content), row) => {
                    // What was measured still holds of an ad that stays where it is.
                    let has_moved = row.is_none_or(|row| *view.vectors.row(row) != *content.embedding);
                    next.counts.born += u64::from(has_moved);
                    died.extend(row.inspect(|row| self.bury(*row, &mut next)));
                    self.absent.remove(&id);
                    born.push((self.give_birth(&id, &content, ad.registers, &mut next), content));
                }
            }
        }
        if !born.is_empty() {
            let postings = Arc::make_mut(&mut next.postings);
            postings.push(Segment::new(born.iter().map(|(row, content)| (*row, &content.attributes))));
            postings.merge(self.kept_segments, MERGED_ROWS_MAX);
        }
        if !died.is_empty() {
            self.dying_rows += died.len();
            let before = std::mem::replace(&mut next.era, Arc::new(()));
            self.dying.push_back((Arc::downgrade(&before), died));
        }
        next.counts.ads = self.present.len() as usize;
        next.counts.free = self.free.len() as usize;
        Ok(Some(next))
    }

    /// Where the ads lie that `changes` patch, where that is news, and when what they have was made.
    pub(crate) fn rows_of_patches(&self, view: &View, changes: &[ShardChange]) -> Vec<(AdId, u32, Revision)> {
        let patches = changes.iter().filter(|change| change.is_patch());
        let of = |change: &ShardChange| {
            let row = self.row_of(&change.id, view)?;
            let at = self.registers.get(row).content_at;
            (change.content_at > at).then(|| (change.id.clone(), row, at))
        };
        patches.filter_map(of).collect()
    }

    /// What the changes make of each ad, in the order of ids, where that is news.
    fn gathered(&self, view: &View, changes: Vec<ShardChange>) -> BTreeMap<AdId, Next> {
        let mut ads = BTreeMap::new();
        for change in changes {
            let next: &mut Next = match ads.entry(change.id.clone()) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(vacant) => {
                    let row = self.row_of(&change.id, view);
                    let known = row.map(|row| *self.registers.get(row)).or_else(|| self.absent.get(&change.id));
                    if known.is_none() && self.absent.is_late(&change) {
                        continue;
                    }
                    let before = known.unwrap_or_default();
                    vacant.insert(Next { row, before, registers: before, content: Content::Same })
                }
            };
            if change.paused_at > next.registers.paused_at {
                (next.registers.paused, next.registers.paused_at) = (change.paused, change.paused_at);
            }
            if change.content_at > next.registers.content_at {
                match change.content {
                    ShardContent::AsBuilt => continue,
                    ShardContent::Is(ad) => next.content = Content::Is(Row::of(*ad)),
                    ShardContent::Nothing => next.content = Content::Nothing,
                    ShardContent::Patched(patch) => next.content.patch(patch),
                }
                next.registers.content_at = change.content_at;
            }
        }
        ads.retain(|_, next| next.registers != next.before);
        ads
    }

    /// The kinds of all attributes, with those that the ads bring.
    fn checked(
        &self,
        view: &View,
        ads: &BTreeMap<AdId, Next>,
    ) -> Result<BTreeMap<Box<str>, AttributeKind>, ChangeError> {
        let mut kinds = (*view.kinds).clone();
        let mut born = 0;
        for (id, next) in ads {
            let Content::Is(content) = &next.content else { continue };
            born += 1;
            check_unit(&content.embedding, view.vectors.dimension())
                .map_err(|source| RowsError::Embedding { ad: id.as_str().into(), source })?;
            check_attributes(id, &content.attributes, &mut kinds).map_err(|error| match error {
                RowsError::Kind { ad, attribute, expected, found } => {
                    ChangeError::Kind { ad, attribute, expected, found }
                }
                error @ (RowsError::Dimension { .. }
                | RowsError::TooMany { .. }
                | RowsError::Duplicate { .. }
                | RowsError::Embedding { .. }
                | RowsError::NotFinite { .. }) => error.into(),
            })?;
        }
        let rows = view.vectors.len() + born;
        if rows > ADS_MAX { Err(RowsError::TooMany { found: rows }.into()) } else { Ok(kinds) }
    }

    fn give_birth(&mut self, id: &AdId, content: &Row, registers: Registers, next: &mut View) -> u32 {
        // The lowest, so that ads of one batch come to lie in few blocks.
        let row = self.free.min().unwrap_or(next.vectors.len() as u32);
        self.free.remove(row);
        self.registers.set(row, registers);
        let name = Name { id: id.as_str(), advertiser: advertiser_of(&content.attributes) };
        Arc::make_mut(&mut next.vectors).set(row, &content.embedding);
        Arc::make_mut(&mut next.names).set(row, name);
        self.name(row, &next.names);
        self.present.insert(row);
        show(next, row, !registers.paused);
        if next.graph.is_some() {
            Arc::make_mut(&mut next.unlinked).insert(row);
        }
        if let Some(cells) = &mut next.cells {
            Arc::make_mut(cells).settle(row, &content.embedding);
        }
        row
    }

    fn bury(&mut self, row: u32, next: &mut View) {
        if let Ok(entry) = self.by_id.find_entry(hash(next.names.get(row).id), |other| *other == row) {
            entry.remove();
        }
        self.registers.set(row, Registers::default());
        self.present.remove(row);
        show(next, row, false);
        if next.unlinked.contains(row) {
            Arc::make_mut(&mut next.unlinked).remove(row);
        }
    }

    fn name(&mut self, row: u32, names: &Names) {
        self.by_id.insert_unique(hash(names.get(row).id), row, |row| hash(names.get(*row).id));
    }

    fn row_of(&self, id: &AdId, view: &View) -> Option<u32> {
        self.by_id.find(hash(id.as_str()), |row| view.names.get(*row).id == id.as_str()).copied()
    }

    /// Rows that died and that no search sees any more, at most so many. The caller sees to them.
    pub(crate) fn unseen(&mut self, rows_max: usize) -> Vec<u32> {
        let mut unseen = Vec::new();
        while let Some((era, rows)) = self.dying.front_mut()
            && era.strong_count() == 0
            && unseen.len() < rows_max
        {
            let left = rows.len().saturating_sub(rows_max - unseen.len());
            unseen.extend(rows.drain(left..));
            if rows.is_empty() {
                self.dying.pop_front();
            }
        }
        self.dying_rows -= unseen.len();
        unseen
    }

    /// Whether [`unseen`](Self::unseen) has any.
    pub(crate) fn has_unseen(&self) -> bool {
        self.dying.front().is_some_and(|(era, _)| era.strong_count() == 0)
    }

    /// How many rows died that [`unseen`](Self::unseen) has not told of.
    pub(crate) fn dying(&self) -> usize {
        self.dying_rows
    }

    /// Takes rows back that nobody sees, to be seen to again after all others.
    pub(crate) fn put_back(&mut self, rows: Vec<u32>) {
        self.dying_rows += rows.len();
        if !rows.is_empty() {
            self.dying.push_back((Weak::new(), rows));
        }
    }
}

fn show(next: &mut View, row: u32, is_live: bool) {
    if next.live.has(row) == is_live {
        return;
    }
    let live = Arc::make_mut(&mut next.live);
    if is_live {
        live.insert(row)
    } else {
        live.remove(row)
    };
}

fn hash(id: &str) -> u64 {
    stable_hash(ID_SEED, id.as_bytes())
}
