//! What goes into the towers, as bags of table rows: items, histories and the head's inputs.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{Result, Tensor};
use turret_retrieval::event::EventType;
use turret_retrieval::user::Demographics;

use crate::catalogue::{ItemFeatures, push_mean};
use crate::features::Features;
use crate::ops::Bags;
use crate::settings::ModelSettings;
use crate::towers::{Dropout, EncodedEvents, HeadEmbeddings, Network, States};

/// Where embeddings come from: the sums of the table rows that bags name, [bags, dimension]. Training also has to move
/// those rows, serving does not.
pub(crate) type Sums<'a> = dyn FnMut(Bags) -> Result<Tensor> + 'a;

/// Item vectors to be made: bags of table rows, and content embeddings beside them.
#[derive(Default)]
pub(crate) struct ItemRows {
    bags: Bags,
    content: Vec<f32>,
    content_dimension: usize,
}

impl ItemRows {
    pub(crate) fn new(features: &Features) -> Self {
        Self { content_dimension: features.schema.content_dimension(), ..Self::default() }
    }

    /// Adds `item` to the row in the making.
    fn push(&mut self, item: &ItemFeatures, with_id: bool) {
        item.push(with_id, &mut self.bags);
        let filled = self.content.len();
        self.content.extend_from_slice(&item.content);
        self.content.resize(filled + self.content_dimension, 0.0);
    }

    /// Adds a row that is `item` alone.
    pub(crate) fn push_row(&mut self, item: &ItemFeatures, with_id: bool) {
        self.push(item, with_id);
        self.bags.close();
    }

    /// Adds a row of zeros.
    fn push_nothing(&mut self) {
        self.content.resize(self.content.len() + self.content_dimension, 0.0);
        self.bags.close();
    }

    fn len(&self) -> usize {
        self.bags.len()
    }

    pub(crate) fn bags(&self) -> &Bags {
        &self.bags
    }

    /// The content embeddings, [rows, content dimension].
    pub(crate) fn content(&self) -> &[f32] {
        &self.content
    }

    /// The item vectors, [rows, dimension].
    pub(crate) fn embed(self, sums: &mut Sums<'_>, network: &Network) -> Result<Tensor> {
        let rows = self.len();
        let embedded = sums(self.bags)?;
        if self.content_dimension == 0 {
            return Ok(embedded);
        }
        let content = Tensor::from_vec(self.content, (rows, self.content_dimension), embedded.device())?;
        network.with_content(embedded, Some(&content))
    }
}

/// One event of a history.
pub(crate) struct HistoryEvent<'a> {
    pub(crate) item: &'a ItemFeatures,
    pub(crate) kind: EventType,
    /// Milliseconds; none where only the order is known.
    pub(crate) at_ms: Option<i64>,
    /// Whether the encoder may see the item's id.
    pub(crate) with_id: bool,
}

/// Histories, one after the other.
pub(crate) struct Histories {
    events: ItemRows,
    starts: Vec<usize>,
}

impl Histories {
    pub(crate) fn new(features: &Features) -> Self {
        Self { events: ItemRows::new(features), starts: vec![0] }
    }

    /// Adds a history, oldest first; it may be empty.
    pub(crate) fn push<'a>(&mut self, history: impl ExactSizeIterator<Item = HistoryEvent<'a>>, features: &Features) {
        let length = history.len();
        let mut before: Option<i64> = None;
        for (position, event) in history.enumerate() {
            self.events.push(event.item, event.with_id);
            let gap = event.at_ms.zip(before).map(|(now, before)| now.saturating_sub(before));
            let bags = &mut self.events.bags;
            bags.push(features.kind(event.kind), 1.0);
            bags.push(features.gap(gap), 1.0);
            bags.push(features.position(length - 1 - position), 1.0);
            bags.close();
            before = event.at_ms;
        }
        self.starts.push(self.events.len());
    }

    /// How many events there are in all.
    pub(crate) fn events(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn bags(&self) -> &Bags {
        &self.events.bags
    }

    /// The events of each history.
    pub(crate) fn spans(&self) -> Vec<Range<usize>> {
        self.starts.windows(2).map(|pair| pair[0]..pair[1]).collect()
    }

    /// What is known after each of `spans`, which are histories or beginnings of them, in their order; of one that is
    /// empty, that there is no history.
    pub(crate) fn states(
        self,
        spans: Vec<Range<usize>>,
        sums: &mut Sums<'_>,
        network: &Network,
        drop: Dropout,
    ) -> Result<States> {
        let rows = spans.len();
        let nothing = network.no_history().clone();
        let lasts = spans.iter().filter(|span| !span.is_empty()).map(|span| span.end as u32 - 1);
        let wanted: Arc<[u32]> = if network.keeps_events() {
            (0..self.events() as u32).collect()
        } else {
            lasts.collect::<BTreeSet<u32>>().into_iter().collect()
        };
        if wanted.is_empty() {
            let width = nothing.dim(1)?;
            return Ok(States { last: nothing.broadcast_as((rows, width))?.contiguous()?, events: None });
        }
        let starts: Arc<[usize]> = self.starts.into();
        let known = network.encode(&self.events.embed(sums, network)?, starts, wanted.clone(), drop)?;
        // A row that is not known takes what stands behind the known ones.
        let place = |span: &Range<usize>| match span.end.checked_sub(1).filter(|_| !span.is_empty()) {
            Some(last) => wanted.partition_point(|wanted| (*wanted as usize) < last) as u32,
            None => wanted.len() as u32,
        };
        let places: Vec<u32> = spans.iter().map(place).collect();
        let last = if places.iter().copied().eq(0..wanted.len() as u32) {
            known.clone()
        } else {
            let places = Tensor::from_vec(places, rows, nothing.device())?;
            Tensor::cat(&[&known, &nothing], 0)?.index_select(&places, 0)?
        };
        let events = network.keeps_events().then_some(known);
        Ok(States { last, events: events.map(|states| EncodedEvents { states, spans: spans.into() }) })
    }
}

/// The part of a context that the model knows.
pub(crate) struct ContextFeatures<'a> {
    /// The rows of the subject's interests, with their confidences.
    pub(crate) interests: Vec<(u32, f32)>,
    /// The rows of the query's words and n-grams.
    pub(crate) query: Vec<u32>,
    /// The subject, where the model looks at it, and whether its id may be seen.
    pub(crate) subject: Option<(&'a ItemFeatures, bool)>,
}

/// What a query knows besides the history.
pub(crate) struct QueryFeatures<'a> {
    /// None where there is no usable context.
    pub(crate) context: Option<&'a ContextFeatures<'a>>,
    /// The rows of age, country and gender.
    pub(crate) demographics: [u32; 3],
}

/// The head's inputs besides the sequence states.
pub(crate) struct HeadRows {
    contextual: bool,
    interests: Bags,
    subjects: Option<ItemRows>,
    given: Vec<f32>,
    demographics: [Bags; 3],
}

impl HeadRows {
    pub(crate) fn new(settings: &ModelSettings, features: &Features) -> Self {
        let contextual = settings.kind == crate::settings::ModelKind::Contextual;
        Self {
            contextual,
            interests: Bags::default(),
            subjects: (contextual && settings.subject_item).then(|| ItemRows::new(features)),
            given: Vec::new(),
            demographics: Default::default(),
        }
    }

    pub(crate) fn push(&mut self, query: &QueryFeatures<'_>) {
        for (bags, row) in self.demographics.iter_mut().zip(query.demographics) {
            bags.push(row, 1.0);
            bags.close();
        }
        if !self.contextual {
            return;
        }
        if let Some(context) = query.context {
            // One place for both: a query says in words what a subject says in interests.
            push_mean(&context.interests, &mut self.interests);
            let each = 1.0 / context.query.len().max(1) as f32;
            context.query.iter().for_each(|row| self.interests.push(*row, each));
        }
        self.interests.close();
        if let Some(subjects) = &mut self.subjects {
            match query.context.and_then(|context| context.subject) {
                Some((item, with_id)) => subjects.push_row(item, with_id),
                None => subjects.push_nothing(),
            }
        }
        self.given.push(if query.context.is_some() { 1.0 } else { 0.0 });
    }

    /// Of the interests, then of age, country and gender.
    pub(crate) fn bags(&self) -> [&Bags; 4] {
        let [age, country, gender] = &self.demographics;
        [&self.interests, age, country, gender]
    }

    /// 1 for each row with a context, else 0; none where the model knows no contexts.
    pub(crate) fn given(&self) -> &[f32] {
        &self.given
    }

    /// What each row looks at, where the model looks at it.
    pub(crate) fn subjects(&self) -> Option<&ItemRows> {
        self.subjects.as_ref()
    }

    /// The rows of age, country and gender.
    pub(crate) fn demographics_of(&self, row: usize) -> [u32; 3] {
        self.demographics.each_ref().map(|bags| bags.parts().0[row])
    }

    /// Joined with `states`, which have as many rows.
    pub(crate) fn embed(self, states: States, sums: &mut Sums<'_>, network: &Network) -> Result<HeadEmbeddings> {
        let [age, country, gender] = self.demographics.map(&mut *sums);
        let demographics = [age?, country?, gender?];
        if !self.contextual {
            return Ok(HeadEmbeddings { states, context: None, context_given: None, demographics });
        }
        let mut context = sums(self.interests)?;
        if let Some(subjects) = self.subjects {
            context = Tensor::cat(&[context, subjects.embed(sums, network)?], 1)?;
        }
        let rows = self.given.len();
        let given = Tensor::from_vec(self.given, (rows, 1), context.device())?;
        Ok(HeadEmbeddings { states, context: Some(context), context_given: Some(given), demographics })
    }
}

/// The rows of `facts`, some of them hidden.
pub(crate) fn demographics(facts: &Demographics, features: &Features, mut hide: impl FnMut() -> bool) -> [u32; 3] {
    let unknown = features.unknown_demographics();
    let mut rows = features.demographics(facts);
    for (row, unknown) in rows.iter_mut().zip(unknown) {
        if hide() {
            *row = unknown;
        }
    }
    rows
}
