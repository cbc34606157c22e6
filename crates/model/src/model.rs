//! A trained model, as serving uses it.

use candle_core::{Device, Result as CandleResult, Tensor};
use turret_retrieval::context::Context;
use turret_retrieval::digest::{Digest, Digester};
use turret_retrieval::event::Event;
use turret_retrieval::ids::EncoderVersion;
use turret_retrieval::item::Item;
use turret_retrieval::user::Demographics;
use turret_retrieval::vector::{UnitVector, VectorError};

use crate::catalogue::{Catalogue, ItemFeatures};
use crate::features::Features;
use crate::inputs::{ContextFeatures, HeadRows, Histories, HistoryEvent, ItemRows, QueryFeatures, demographics};
use crate::ops::with_values;
use crate::parameters::Parameter;
use crate::settings::{ModelKind, ModelSettings};
use crate::towers::{Dropout, Network};

/// A trained model: encoder, head and ad tower, with the features that they read.
///
/// Immutable, and safe to share between threads.
pub struct Model {
    pub(crate) settings: ModelSettings,
    pub(crate) features: Features,
    pub(crate) catalogue: Catalogue,
    /// Whether events have times, or only an order.
    pub(crate) timed: bool,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) table: Tensor,
    network: Network,
    versions: Versions,
}

/// Digests of what each part reads.
struct Versions {
    encoder: EncoderVersion,
    head: String,
    ad_tower: String,
    schema: Digest,
}

/// One query of the online half.
#[derive(Clone, Copy, Debug)]
pub struct HeadInput<'a> {
    /// The sequence state, [`Model::state_dimension`] long; none where there is no history.
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
    #[error("a state of {found} values where {expected} are expected")]
    State {
        /// How many there must be.
        expected: usize,
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

impl Model {
    pub(crate) fn new(
        settings: ModelSettings,
        features: Features,
        catalogue: Catalogue,
        timed: bool,
        parameters: Vec<Parameter>,
        table: Vec<f32>,
    ) -> CandleResult<Self> {
        let versions = Versions::of((&settings, timed), (&features, &catalogue), &parameters, &table);
        let table = Tensor::from_vec(table, (features.rows(), settings.dimension), &Device::Cpu)?;
        let mut find = |name: &str| {
            let parameter = parameters.iter().find(|parameter| parameter.name == name)?;
            parameter.tensor().ok()
        };
        let network = Network::new(&settings, features.schema.content_dimension(), &mut find)?;
        Ok(Self { settings, features, catalogue, timed, parameters, table, network, versions })
    }

    /// The shape of the model.
    pub fn settings(&self) -> &ModelSettings {
        &self.settings
    }

    /// The length of query and ad embeddings.
    pub fn dimension(&self) -> usize {
        self.settings.dimension
    }

    /// The length of sequence states.
    pub fn state_dimension(&self) -> usize {
        self.settings.dimension
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
    /// One state of [`state_dimension`](Self::state_dimension) values for each history; an empty one has an empty state.
    ///
    /// # Errors
    /// When an operation fails.
    pub fn encode(&self, histories: &[&[Event]]) -> Result<Vec<Vec<f32>>, ModelError> {
        let mut packed = Histories::new(&self.features);
        let mut lasts = Vec::new();
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
            lasts.push((!latest.is_empty()).then(|| packed.events() - 1));
        }
        let mut states = self.states(packed, &lasts)?.into_iter();
        Ok(lasts.iter().map(|last| if last.is_some() { states.next().unwrap_or_default() } else { vec![] }).collect())
    }

    /// What is known of an event's item where the catalogue does not have it.
    fn unknown(&self, event: &Event) -> Option<ItemFeatures> {
        match self.catalogue.find(&event.item_id) {
            Some(_) => None,
            None => Some(ItemFeatures::of_unknown(&event.item_id, &self.features)),
        }
    }

    /// The states after those of the packed events that `lasts` names.
    pub(crate) fn states(&self, packed: Histories, lasts: &[Option<usize>]) -> CandleResult<Vec<Vec<f32>>> {
        let chosen: Vec<u32> = lasts.iter().flatten().map(|last| *last as u32).collect();
        if chosen.is_empty() {
            return Ok(Vec::new());
        }
        let hidden = packed.encode(&self.table, &self.network, Dropout::NONE)?;
        let rows = chosen.len();
        let chosen = hidden.index_select(&Tensor::from_vec(chosen, rows, &Device::Cpu)?, 0)?;
        let width = self.settings.dimension;
        with_values(&self.network.states(&chosen)?, |values| {
            Ok(values.chunks_exact(width).map(<[f32]>::to_vec).collect())
        })
    }

    /// Query embeddings, one for each input.
    ///
    /// # Errors
    /// When a state has another length, or an embedding is not a direction (a state that is not finite).
    pub fn embed_queries(&self, inputs: &[HeadInput<'_>]) -> Result<Vec<UnitVector>, ModelError> {
        if inputs.is_empty() {
            return Ok(Vec::new());
        }
        let expected = self.state_dimension();
        let mut states = Vec::with_capacity(inputs.len() * expected);
        let mut head = HeadRows::new(&self.settings, &self.features);
        let nothing = with_values(self.network.no_history(), |values| Ok(values.to_vec()))?;
        for input in inputs {
            let state = input.state.unwrap_or(&nothing);
            if state.len() != expected {
                return Err(ModelError::State { expected, found: state.len() });
            }
            states.extend_from_slice(state);
            let context = input.context.and_then(|context| self.usable(context));
            let demographics = demographics(input.demographics, &self.features, || false);
            head.push(&QueryFeatures { context: context.as_ref(), demographics });
        }
        let states = Tensor::from_vec(states, (inputs.len(), expected), &Device::Cpu)?;
        let embeddings = head.embed(states, &self.table, &self.network)?;
        unit_vectors(&self.network.head(embeddings, Dropout::NONE)?)
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
        items.iter().for_each(|item| rows.push_row(&ItemFeatures::of(item, &self.features), true));
        unit_vectors(&self.ads(rows)?)
    }

    /// Ad embeddings, [rows, dimension].
    pub(crate) fn ads(&self, rows: ItemRows) -> CandleResult<Tensor> {
        self.network.ads(&rows.embed(&self.table, &self.network)?)
    }

    /// Whether the context layer can make something of `context`: an interest, or a subject item, that the model knows.
    pub fn context_is_usable(&self, context: &Context) -> bool {
        self.usable(context).is_some()
    }

    fn usable(&self, context: &Context) -> Option<ContextFeatures<'_>> {
        let subject = context.subject.as_ref().filter(|_| self.settings.kind == ModelKind::Contextual)?;
        let known = subject.item_id.as_ref().and_then(|id| self.catalogue.find(id));
        let given = subject.interests.iter();
        let mut interests: Vec<(u32, f32)> =
            given.filter_map(|i| self.features.interest(&i.id).map(|row| (row, i.confidence))).collect();
        if subject.interests.is_empty() {
            interests = known.map_or_else(Vec::new, |item| item.interests.clone());
        }
        let subject = known.filter(|_| self.settings.subject_item).map(|item| (item, true));
        (!interests.is_empty() || subject.is_some()).then_some(ContextFeatures { interests, subject })
    }
}

fn unit_vectors(rows: &Tensor) -> Result<Vec<UnitVector>, ModelError> {
    let width = rows.dim(1)?;
    let values = with_values(rows, |values| Ok(values.to_vec()))?;
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
        let catalogue = postcard::to_stdvec(&catalogue.items).expect("features hold nothing that postcard refuses");
        shared.update(&catalogue);
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
