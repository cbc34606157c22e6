//! Users made of rows, which are checked.

use std::fmt::Display;
use std::ops::Range;

use arrow::array::{Array, AsArray, BinaryArray, ListArray, PrimitiveArray, RecordBatch, StringArray};
use arrow::datatypes::{ArrowPrimitiveType, Int64Type, UInt8Type, UInt32Type, UInt64Type};
use turret_retrieval::event::{Event, EventType};
use turret_retrieval::ids::{EncoderVersion, EventId, ItemId, UserId};
use turret_retrieval::kept::{Erased, KeptError, KeptUser, StoredState};
use turret_retrieval::revision::Revision;
use turret_retrieval::state::{Precision, SequenceState, StateError};
use turret_retrieval::user::Demographics;

/// A rule that a column breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) column: &'static str,
    pub(super) rule: String,
}

/// The rows of a batch that has exactly the schema: what must not be null is not.
pub(super) struct Rows<'a> {
    user_id: &'a StringArray,
    age: &'a PrimitiveArray<UInt8Type>,
    country: &'a StringArray,
    gender: &'a StringArray,
    demographics_revision: &'a PrimitiveArray<UInt64Type>,
    log_revision: &'a PrimitiveArray<UInt64Type>,
    erasure_revision: &'a PrimitiveArray<UInt64Type>,
    erasure_watermark_ms: &'a PrimitiveArray<Int64Type>,
    events: Events<'a>,
    states: States<'a>,
}

struct Events<'a> {
    lists: &'a ListArray,
    item_id: &'a StringArray,
    event_type: &'a StringArray,
    timestamp_ms: &'a PrimitiveArray<Int64Type>,
    event_id: &'a StringArray,
}

struct States<'a> {
    lists: &'a ListArray,
    encoder: &'a StringArray,
    made_at_ms: &'a PrimitiveArray<Int64Type>,
    covers_until_ms: &'a PrimitiveArray<Int64Type>,
    covers: &'a PrimitiveArray<UInt64Type>,
    dimension: &'a PrimitiveArray<UInt32Type>,
    precision: &'a StringArray,
    bytes: &'a BinaryArray,
}

const CHECKED: &str = "the columns were compared with the schema when the file was opened";

impl<'a> Rows<'a> {
    pub(super) fn new(batch: &'a RecordBatch) -> Self {
        let column = |name: &str| batch.column_by_name(name).expect(CHECKED);
        Self {
            user_id: column("user_id").as_string(),
            age: column("age").as_primitive(),
            country: column("country").as_string(),
            gender: column("gender").as_string(),
            demographics_revision: column("demographics_revision").as_primitive(),
            log_revision: column("log_revision").as_primitive(),
            erasure_revision: column("erasure_revision").as_primitive(),
            erasure_watermark_ms: column("erasure_watermark_ms").as_primitive(),
            events: Events::new(column("events").as_list()),
            states: States::new(column("states").as_list()),
        }
    }

    /// The user in `row` of the batch.
    pub(super) fn user(&self, row: usize) -> Result<KeptUser, Broken> {
        let user = UserId::new(self.user_id.value(row)).map_err(|rule| broken("user_id", rule))?;
        let erased = match (get(self.erasure_revision, row), get(self.erasure_watermark_ms, row)) {
            (Some(at), Some(watermark_ms)) => Some(Erased { at: Revision::from_bits(at), watermark_ms }),
            (None, None) => None,
            (Some(_), None) => return Err(broken("erasure_watermark_ms", "is null, and erasure_revision is not")),
            (None, Some(_)) => return Err(broken("erasure_revision", "is null, and erasure_watermark_ms is not")),
        };
        let user = KeptUser {
            user,
            demographics: Demographics {
                age: get(self.age, row),
                country: text(self.country, row).map(Into::into),
                gender: text(self.gender, row).map(Into::into),
            },
            demographics_at: Revision::from_bits(self.demographics_revision.value(row)),
            log_at: Revision::from_bits(self.log_revision.value(row)),
            erased,
            events: range(self.events.lists, row).map(|at| self.events.get(at)).collect::<Result<_, _>>()?,
            states: range(self.states.lists, row).map(|at| self.states.get(at)).collect::<Result<_, _>>()?,
        };
        user.check().map_err(|error| unsound(&error))?;
        Ok(user)
    }
}

impl<'a> Events<'a> {
    fn new(lists: &'a ListArray) -> Self {
        let field = |name: &str| lists.values().as_struct().column_by_name(name).expect(CHECKED);
        Self {
            lists,
            item_id: field("item_id").as_string(),
            event_type: field("event_type").as_string(),
            timestamp_ms: field("timestamp_ms").as_primitive(),
            event_id: field("event_id").as_string(),
        }
    }

    fn get(&self, at: usize) -> Result<Event, Broken> {
        let kind = self.event_type.value(at);
        let event_id = text(self.event_id, at).map(EventId::new).transpose();
        Ok(Event {
            item_id: ItemId::new(self.item_id.value(at)).map_err(|rule| broken("events.item_id", rule))?,
            event_type: EventType::from_name(kind)
                .ok_or_else(|| broken("events.event_type", unknown(kind, EventType::ALL.map(EventType::name))))?,
            timestamp_ms: self.timestamp_ms.value(at),
            event_id: event_id.map_err(|rule| broken("events.event_id", rule))?,
        })
    }
}

impl<'a> States<'a> {
    fn new(lists: &'a ListArray) -> Self {
        let field = |name: &str| lists.values().as_struct().column_by_name(name).expect(CHECKED);
        Self {
            lists,
            encoder: field("encoder").as_string(),
            made_at_ms: field("made_at_ms").as_primitive(),
            covers_until_ms: field("covers_until_ms").as_primitive(),
            covers: field("covers").as_primitive(),
            dimension: field("dimension").as_primitive(),
            precision: field("precision").as_string(),
            bytes: field("bytes").as_binary(),
        }
    }

    fn get(&self, at: usize) -> Result<StoredState, Broken> {
        let name = self.precision.value(at);
        let precision = Precision::from_name(name)
            .ok_or_else(|| broken("states.precision", unknown(name, Precision::ALL.map(Precision::name))))?;
        let dimension = self.dimension.value(at) as usize;
        let sequence = SequenceState::from_bytes(self.bytes.value(at).into(), dimension, precision);
        Ok(StoredState {
            encoder: EncoderVersion::new(self.encoder.value(at)).map_err(|rule| broken("states.encoder", rule))?,
            made_at_ms: self.made_at_ms.value(at),
            covers_until_ms: self.covers_until_ms.value(at),
            covers: Revision::from_bits(self.covers.value(at)),
            sequence: sequence.map_err(|rule| match rule {
                StateError::Dimension { .. } => broken("states.dimension", rule),
                StateError::Rows { .. } | StateError::TooLarge { .. } | StateError::NotFinite { .. } => {
                    broken("states.bytes", rule)
                }
            })?,
        })
    }
}

fn range(lists: &ListArray, row: usize) -> Range<usize> {
    let offsets = lists.value_offsets();
    offsets[row] as usize..offsets[row + 1] as usize
}

fn get<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, row: usize) -> Option<T::Native> {
    array.is_valid(row).then(|| array.value(row))
}

fn text(array: &StringArray, row: usize) -> Option<&str> {
    array.is_valid(row).then(|| array.value(row))
}

fn broken(column: &'static str, rule: impl Display) -> Broken {
    Broken { column, rule: rule.to_string() }
}

fn unknown<const N: usize>(found: &str, known: [&str; N]) -> String {
    // It may be of any length, and is shown on one line.
    let shown: String = found.chars().take(32).collect();
    format!("`{}` is not one of {}", shown.escape_debug(), known.join(", "))
}

/// The text begins with the field where it is one of several, and the column says that already.
fn unsound(error: &KeptError) -> Broken {
    let (column, text) = (error.field(), error.to_string());
    let rule = text.strip_prefix(column).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(&text);
    broken(column, rule)
}
