//! A trained model, as serving uses it.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Result as CandleResult, Tensor};
use turret_retrieval::context::Context;
use turret_retrieval::digest::{Digest, Digester};
use turret_retrieval::event::Event;
use turret_retrieval::ids::EncoderVersion;
use turret_retrieval::item::Item;
use turret_retrieval::user::Demographics;
use turret_retrieval::vector::{UnitVector, VectorError};

use crate::catalogue::{Catalogue, ItemFeatures};
use crate::device::Device;
use crate::features::Features;
use crate::head::Head;
use crate::inputs::{ContextFeatures, Histories, HistoryEvent, ItemRows};
use crate::ops::{Backend, Bags, bag, with_values};
use crate::parameters::Parameter;
use crate::settings::{ModelKind, ModelSettings, Split};
use crate::towers::{Dropout, Network, States};

mod probe;
mod queries;

/// A trained model: encoder, head and ad tower, with the features that they read.
///
/// Immutable, and safe to share between threads.
pub struct Model {
    pub(crate) settings: ModelSettings,
    pub(crate) features: Arc<Features>,
    pub(crate) catalogue: Arc<Catalogue>,
    /// Whether events have times, or only an order.
    pub(crate) timed: bool,
    /// What it was trained on.
    pub(crate) split: Split,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) table: Tensor,
    network: Network,
    // What the network's head is on a CPU; none on another device.
    head: Option<Head>,
    // Rows of the table that training never touched.
    untrained: Vec<bool>,
    versions: Versions,
}

/// Digests of what each part reads.
#[derive(Clone)]
struct Versions {
    encoder: EncoderVersion,
    head: String,
    ad_tower: String,
    schema: Digest,
}

/// One query of the online half.
#[derive(Clone, Copy, Debug)]
pub struct HeadInput<'a> {
    /// The sequence state, as [`Model::encode`] made it; none where there is no history.
    pub state: Option<&'a [f32]>,
    /// What the user is looking at.
    pub context: Option<&'a Context>,
    /// What is known of the user.
    pub demographics: &'a Demographics,
}

/// Why a vector cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The state is of another model.
    #[error("a state of {found} values where {rows_max} x {dimension} at most are expected, in whole rows")]
    State {
        /// The rows that there may be.
        rows_max: usize,
        /// The values of a row.
        dimension: usize,
        /// How many there were.
        found: usize,
    },
    /// The result is not a direction.
    #[error("row {row}: {source}")]
    Vector {
        /// Which input.
        row: usize,
        /// What is wrong.
        source: VectorError,
    },
    /// An operation failed.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl ModelError {
    /// Whether the model, or the device that computes it, is at fault: no finite input makes a sound model fail like that.
    pub fn is_of_model(&self) -> bool {
        match self {
            Self::Tensor(_) | Self::Vector { source: VectorError::NotFinite { .. }, .. } => true,
            Self::State { .. } | Self::Vector { source: VectorError::Zero | VectorError::Dimension { .. }, .. } => {
                false
            }
        }
    }

    /// Whether a number that was computed is NaN or infinite.
    pub fn is_not_finite(&self) -> bool {
        matches!(self, Self::Vector { source: VectorError::NotFinite { .. }, .. })
    }
}

impl Model {
    pub(crate) fn new(
        settings: ModelSettings,
        features: impl Into<Arc<Features>>,
        catalogue: impl Into<Arc<Catalogue>>,
        timed: bool,
        split: Split,
        parameters: Vec<Parameter>,
        table: Vec<f32>,
    ) -> CandleResult<Self> {
        let (features, catalogue) = (features.into(), catalogue.into());
        let versions = Versions::of((&settings, timed), (&features, &catalogue), &parameters, &table);
        let untrained = table.chunks_exact(settings.dimension).map(|row| row.iter().all(|x| *x == 0.0)).collect();
        // First, for it finds out whether every tensor is there.
        let network = network(&settings, &features, &parameters, &Device::CPU)?;
        let head = Some(Head::new(&settings, &features, &parameters, &table));
        let table = Tensor::from_vec(table, (features.rows(), settings.dimension), &Device::CPU.0)?;
        Ok(Self { settings, features, catalogue, timed, split, parameters, table, network, head, untrained, versions })
    }

    /// The same model, computed on `device`. Its versions stay: states and embeddings of two devices differ by rounding. The
    /// table stays where it is: it may be larger than a GPU, and sums of its rows are soon made.
    ///
    /// # Errors
    /// When the device has no room.
    pub fn on(mut self, device: &Device) -> CandleResult<Self> {
        self.network = network(&self.settings, &self.features, &self.parameters, device)?;
        self.head = self.head.filter(|_| device.0.is_cpu());
        Ok(self)
    }

    /// A copy that is computed on `device`, beside this one; the two share the table. Versions as in [`on`](Self::on).
    ///
    /// # Errors
    /// When the device has no room.
    pub fn copy_on(&self, device: &Device) -> Result<Self, ModelError> {
        let head = |table: &[f32]| Ok(Head::new(&self.settings, &self.features, &self.parameters, table));
        Ok(Self {
            settings: self.settings.clone(),
            features: self.features.clone(),
            catalogue: self.catalogue.clone(),
            timed: self.timed,
            split: self.split,
            parameters: self.parameters.clone(),
            table: self.table.clone(),
            network: network(&self.settings, &self.features, &self.parameters, device)?,
            head: if device.0.is_cpu() { Some(with_values(&self.table, head)?) } else { None },
            untrained: self.untrained.clone(),
            versions: self.versions.clone(),
        })
    }

    /// The shape of the model.
    pub fn settings(&self) -> &ModelSettings {
        &self.settings
    }

    /// The split on whose training part it was trained: the cases of another may be ones that it has seen.
    pub fn split(&self) -> &Split {
        &self.split
    }

    /// The length of query and ad embeddings.
    pub fn dimension(&self) -> usize {
        self.settings.dimension
    }

    /// How many rows the embedding table has.
    pub fn table_rows(&self) -> usize {
        self.untrained.len()
    }

    /// How many of them training never touched.
    pub fn untrained_rows(&self) -> usize {
        self.untrained.iter().filter(|untrained| **untrained).count()
    }

    /// How many rows of [`dimension`](Self::dimension) values a sequence state has at most.
    pub fn state_rows_max(&self) -> usize {
        self.settings.state_rows_max()
    }

    /// Which states this model makes and reads.
    pub fn encoder_version(&self) -> &EncoderVersion {
        &self.versions.encoder
    }

    /// Which head this is.
    pub fn head_version(&self) -> &str {
        &self.versions.head
    }

    /// Which ad tower this is.
    pub fn ad_tower_version(&self) -> &str {
        &self.versions.ad_tower
    }

    /// What the features mean.
    pub fn feature_schema(&self) -> &Digest {
        &self.versions.schema
    }

    /// The sequence states of histories, each oldest first; of longer ones the latest events count.
    ///
    /// One state for each history, [rows, dimension], at most [`state_rows_max`](Self::state_rows_max) rows, the latest
    /// event's last; an empty history has an empty state.
    ///
    /// # Errors
    /// When an operation fails.
    pub fn encode(&self, histories: &[&[Event]]) -> Result<Vec<Vec<f32>>, ModelError> {
        let mut packed = Histories::new(&self.features);
        for history in histories {
            let latest = &history[history.len().saturating_sub(self.settings.history_length_max)..];
            let items: Vec<Option<ItemFeatures>> = latest.iter().map(|event| self.unknown(event)).collect();
            let events = latest.iter().zip(&items).map(|(event, unknown)| HistoryEvent {
                item: unknown.as_ref().or_else(|| self.catalogue.find(&event.item_id)).expect("known or made"),
                kind: event.event_type,
                at_ms: self.timed.then_some(event.timestamp_ms),
                with_id: true,
            });
            packed.push(events, &self.features);
        }
        Ok(self.states(packed)?)
    }

    /// What is known of an event's item where the catalogue does not have it.
    fn unknown(&self, event: &Event) -> Option<ItemFeatures> {
        match self.catalogue.find(&event.item_id) {
            Some(_) => None,
            None => Some(ItemFeatures::of_unknown(&self.features)),
        }
    }

    /// The state of each of the packed histories; an empty one has an empty state.
    pub(crate) fn states(&self, packed: Histories) -> CandleResult<Vec<Vec<f32>>> {
        let spans = packed.spans();
        let States { last, events } = packed.states(spans.clone(), &mut self.sums(), &self.network, Dropout::NONE)?;
        let width = self.settings.dimension;
        let (rows, kept): (Tensor, Vec<Range<usize>>) = match events {
            Some(events) => (events.states, spans),
            None => (last, spans.iter().enumerate().map(|(row, span)| row..row + span.len().min(1)).collect()),
        };
        with_values(&rows, |values| {
            Ok(kept.into_iter().map(|rows| values[rows.start * width..rows.end * width].to_vec()).collect())
        })
    }

    /// Ad embeddings of the items that ads promote, one for each; the model need not have seen them before.
    ///
    /// # Errors
    /// When an embedding is not a direction (a content embedding that is not finite).
    pub fn embed_items(&self, items: &[&Item]) -> Result<Vec<UnitVector>, ModelError> {
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let mut rows = ItemRows::new(&self.features);
        items.iter().for_each(|item| rows.push_row(&self.item(item), true));
        with_values(&self.ads(rows)?, |values| Ok(unit_vectors(values, self.dimension())))?
    }

    /// The features of an item; its id only where training saw it.
    pub(crate) fn item(&self, item: &Item) -> ItemFeatures {
        let id = self.catalogue.find(&item.id).and_then(|known| known.id);
        ItemFeatures { id, ..ItemFeatures::of(item, &self.features) }
    }

    /// Ad embeddings, [rows, dimension].
    pub(crate) fn ads(&self, rows: ItemRows) -> CandleResult<Tensor> {
        self.network.ads(&rows.embed(&mut self.sums(), &self.network)?)
    }

    fn sums(&self) -> impl FnMut(Bags) -> CandleResult<Tensor> + '_ {
        |bags| bag(&self.table, &bags, self.network.device())
    }

    /// Whether the context layer can make something of `context`: an interest or a subject item that the model knows, or
    /// a query with a word, or a part of one, that it was trained with.
    pub fn context_is_usable(&self, context: &Context) -> bool {
        self.usable(context).is_some()
    }

    fn usable(&self, context: &Context) -> Option<ContextFeatures<'_>> {
        if self.settings.kind != ModelKind::Contextual {
            return None;
        }
        let subject = context.subject.as_ref();
        let known = subject.and_then(|subject| subject.item_id.as_ref()).and_then(|id| self.catalogue.find(id));
        let given = subject.map_or(&[][..], |subject| &subject.interests);
        let mut interests: Vec<(u32, f32)> =
            given.iter().filter_map(|i| self.features.interest(&i.id).map(|row| (row, i.confidence))).collect();
        if given.is_empty() {
            interests = known.map_or_else(Vec::new, |item| item.interests.clone());
        }
        let mut query = context.query.as_ref().map_or_else(Vec::new, |query| self.features.query(query));
        query.retain(|row| !self.untrained[*row as usize]);
        let subject = known.filter(|_| self.settings.subject_item).map(|item| (item, true));
        let usable = !interests.is_empty() || !query.is_empty() || subject.is_some();
        usable.then_some(ContextFeatures { interests, query, subject })
    }
}

/// The dense part of a model, on `device`.
fn network(
    settings: &ModelSettings,
    features: &Features,
    parameters: &[Parameter],
    device: &Device,
) -> CandleResult<Network> {
    let mut find = |name: &str| {
        let parameter = parameters.iter().find(|parameter| parameter.name == name)?;
        parameter.tensor(&device.0).ok()
    };
    Network::new(settings, features.schema.content_dimension(), Backend::of(&device.0), &mut find)
}

fn unit_vectors(values: &[f32], width: usize) -> Result<Vec<UnitVector>, ModelError> {
    let unit = |(row, values): (usize, &[f32])| {
        UnitVector::normalize(values.to_vec()).map_err(|source| ModelError::Vector { row, source })
    };
    values.chunks_exact(width).enumerate().map(unit).collect()
}

impl Versions {
    fn of(
        settings: (&ModelSettings, bool),
        (features, catalogue): (&Features, &Catalogue),
        parameters: &[Parameter],
        table: &[f32],
    ) -> Self {
        let schema = features.schema.digest();
        let mut shared = Digester::default();
        // Some of them, such as what attends to what, change results and no tensor.
        shared.update(&serde_json::to_vec(&settings).expect("settings are JSON"));
        shared.update(schema.to_string().as_bytes());
        let add = |digester: &mut Digester, values: &[f32]| {
            for values in values.chunks(4_096) {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                digester.update(&bytes);
            }
        };
        add(&mut shared, table);
        let of = |prefixes: &[&str], digester: &Digester| {
            let mut digester = digester.clone();
            for parameter in parameters.iter().filter(|p| prefixes.iter().any(|prefix| p.name.starts_with(prefix))) {
                digester.update(parameter.name.as_bytes());
                add(&mut digester, &parameter.values);
            }
            digester.finish().short().to_owned()
        };
        let ad_tower = format!("ads-{}", of(&["ads.", "items."], &shared));
        // An encoder and a head also read items by id.
        shared.update(&catalogue.to_bytes());
        let encoder = format!("enc-{}", of(&["encoder.", "items."], &shared));
        let head = format!("head-{}", of(&["head.", "items."], &shared));
        let encoder = EncoderVersion::new(&encoder).expect("a short name of letters and digits is an id");
        Self { encoder, head, ad_tower, schema }
    }
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("encoder", &self.versions.encoder).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
