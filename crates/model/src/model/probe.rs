//! The question that a model asks itself, to find out whether what computes it computes what it should.

use turret_retrieval::context::{Context, Subject};
use turret_retrieval::event::{Event, EventType};
use turret_retrieval::ids::ItemId;
use turret_retrieval::user::Demographics;
use turret_retrieval::vector::UnitVector;

use super::{HeadInput, Model, ModelError};

/// Between two events of the history.
const GAP_MS: i64 = 60_000;

impl Model {
    /// The answer to a question of the model's own, asked `rows` times at once: somebody unknown whose history is as long as
    /// the encoder reads looks at an item that the model knows. It is encoded and embedded where the model is computed, and is
    /// the same everywhere up to the order of sums.
    ///
    /// # Errors
    /// When an operation fails, or the answer is not finite: the model or its device is of no use.
    pub fn probe(&self, rows: usize) -> Result<Vec<UnitVector>, ModelError> {
        let unknown = ItemId::from(0);
        let known = || self.catalogue.items.iter().map(|(id, _)| id);
        let first = known().next().unwrap_or(&unknown);
        let event = |(item, at): (&ItemId, i64)| Event {
            item_id: item.clone(),
            event_type: EventType::View,
            timestamp_ms: at * GAP_MS,
            event_id: None,
        };
        let items = known().chain(std::iter::repeat(first)).take(self.settings.history_length_max);
        let history: Vec<Event> = items.zip(0..).map(event).collect();
        let states = self.encode(&[&history])?;
        let subject = Subject { item_id: Some(first.clone()), interests: Vec::new() };
        let context = Context { subject: Some(subject), query: None };
        let input = HeadInput {
            state: states.first().map(Vec::as_slice),
            context: Some(&context),
            demographics: &Demographics::default(),
        };
        self.embed_queries(&vec![input; rows])
    }
}
