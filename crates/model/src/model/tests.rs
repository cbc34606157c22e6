use std::ops::ControlFlow;

use turret_retrieval::context::Subject;
use turret_retrieval::dataset::Clock;
use turret_retrieval::event::EventType;
use turret_retrieval::ids::{InterestId, ItemId};
use turret_retrieval::item::Interest;
use turret_retrieval::state::{Precision, SequenceState};
use turret_retrieval::vector::dot;

use super::*;
use crate::planted::{self, SPLIT, item, world};
use crate::settings::Fusion;

fn trained(kind: ModelKind) -> Model {
    trained_as(&planted::model(kind))
}

fn attending() -> Model {
    trained_as(&ModelSettings { fusion: Fusion::CrossAttention, ..planted::model(ModelKind::Contextual) })
}

fn trained_as(model: &ModelSettings) -> Model {
    let data = world(40, Clock::Milliseconds);
    let mut go_on = |_| ControlFlow::Continue(());
    crate::train(&data, &SPLIT, model, &planted::training(40), &mut go_on).unwrap().0
}

fn event(item: u64, at: i64) -> Event {
    Event { item_id: ItemId::from(item), event_type: EventType::View, timestamp_ms: at, event_id: None }
}

fn context(item_id: Option<u64>, interest: Option<u64>) -> Context {
    let interests = interest.map(|id| Interest { id: InterestId::from(id), confidence: 0.5 }).into_iter().collect();
    Context { subject: Some(Subject { item_id: item_id.map(ItemId::from), interests }), query: None }
}

#[test]
fn a_state_does_not_depend_on_what_else_is_encoded() {
    for model in [trained(ModelKind::Contextual), attending()] {
        check_states(&model);
    }
}

fn check_states(model: &Model) {
    let short = [event(1, 0), event(2, 60_000)];
    // Longer than the encoder looks, with an item that it never saw.
    let long: Vec<Event> = (0..50).map(|at| event(if at == 45 { 999_999 } else { at as u64 }, at * 1_000)).collect();
    let together = model.encode(&[&short, &[], &long]).unwrap();
    assert_eq!(together[1], Vec::<f32>::new());
    for (history, state) in [(&short[..], &together[0]), (&long, &together[2]), (&long[30..], &together[2])] {
        let rows = history.len().min(model.state_rows_max());
        assert_eq!(state.len(), rows * model.dimension());
        let alone = &model.encode(&[history]).unwrap()[0];
        let difference = alone.iter().zip(state).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference < 1e-5, "{difference}");
    }
    assert_ne!(together[0], together[2]);
    assert_eq!(model.encode(&[]).unwrap(), Vec::<Vec<f32>>::new());
}

#[test]
fn what_the_model_knows_of_a_context_decides_whether_it_is_used() {
    let contextual = trained(ModelKind::Contextual);
    let check = |context: &Context, usable| assert_eq!(contextual.context_is_usable(context), usable, "{context:?}");
    check(&context(Some(3), None), true);
    check(&context(None, Some(2)), true);
    check(&context(Some(999_999), Some(2)), true);
    check(&context(Some(999_999), None), false);
    check(&context(None, Some(999)), false);
    check(&Context { subject: None, query: Some("a chair".to_owned()) }, true);
    check(&Context { subject: None, query: Some("qqqq".to_owned()) }, false);
    check(&Context { subject: None, query: Some(" - ".to_owned()) }, false);
    assert!(!trained(ModelKind::HistoryOnly).context_is_usable(&context(Some(3), None)));
}

#[test]
fn a_query_hears_its_context_and_its_user_and_not_an_unusable_context() {
    let model = trained(ModelKind::Contextual);
    let state = model.encode(&[&[event(1, 0)]]).unwrap().remove(0);
    let (nobody, someone) =
        (Demographics::default(), Demographics { gender: Some("male".into()), ..Default::default() });
    let embed = |state: Option<&[f32]>, context: Option<&Context>, demographics: &Demographics| {
        let input = HeadInput { state, context, demographics };
        model.embed_queries(&[input]).unwrap().remove(0)
    };
    let plain = embed(Some(&state), None, &nobody);
    assert!((dot(plain.as_slice(), plain.as_slice()) - 1.0).abs() < 1e-5);
    assert_ne!(embed(Some(&state), Some(&context(Some(3), None)), &nobody), plain);
    assert_ne!(embed(Some(&state), None, &someone), plain);
    assert_ne!(embed(None, None, &nobody), plain);
    assert_eq!(embed(Some(&state), Some(&context(Some(999_999), None)), &nobody), plain);
    let none = model.embed_queries(&[]).unwrap();
    assert!(none.is_empty());
}

/// The head of serving beside that of training: every fusion, with and without a context, a subject's vector, a history.
#[test]
fn the_head_of_serving_is_the_networks_head() {
    let contextual = planted::model(ModelKind::Contextual);
    let models = [
        planted::model(ModelKind::HistoryOnly),
        ModelSettings { subject_item: false, ..contextual.clone() },
        ModelSettings { subject_item: true, ..contextual.clone() },
        ModelSettings { subject_item: true, content_embedding: true, ..contextual.clone() },
        ModelSettings { fusion: Fusion::CrossAttention, ..contextual },
    ];
    for settings in models {
        let data = world(40, Clock::Milliseconds);
        let mut go_on = |_| ControlFlow::Continue(());
        let own = crate::train(&data, &SPLIT, &settings, &planted::training(40), &mut go_on).unwrap().0;
        let (features, catalogue) = (own.features.clone(), own.catalogue.clone());
        let (parameters, table) = (own.parameters.clone(), own.table.flatten_all().unwrap().to_vec1().unwrap());
        let mut network = Model::new(settings.clone(), features, catalogue, true, SPLIT, parameters, table).unwrap();
        network.head = None;

        let history: Vec<Event> = (0..6).map(|at| event(at, at as i64 * 60_000)).collect();
        let states = own.encode(&[&history, &history[..1]]).unwrap();
        let someone = Demographics { age: Some(33), country: Some("US".into()), gender: Some("male".into()) };
        let contexts = [context(Some(3), None), context(None, Some(2)), context(Some(3), Some(1)), context(None, None)];
        let mut inputs = Vec::new();
        for state in [None, Some(&states[0][..]), Some(&states[1][..])] {
            for context in contexts.iter().map(Some).chain([None]) {
                for demographics in [&someone, &Demographics::default()] {
                    inputs.push((state, context, demographics.clone()));
                }
            }
        }
        let inputs: Vec<HeadInput<'_>> = inputs
            .iter()
            .map(|(state, context, demographics)| HeadInput { state: *state, context: *context, demographics })
            .collect();
        let (found, expected) = (own.embed_queries(&inputs).unwrap(), network.embed_queries(&inputs).unwrap());
        let pairs = found.iter().zip(&expected).flat_map(|(a, b)| a.as_slice().iter().zip(b.as_slice()));
        let off = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off <= 1e-5, "{off}: {settings:?}");
        // Alone and among others, to the bit.
        for (input, together) in inputs.iter().zip(&found) {
            assert_eq!(own.embed_queries(std::slice::from_ref(input)).unwrap()[0], *together);
        }
    }
}

/// The network's own head stands in for a GPU's, which is candle's as well.
#[test]
fn a_copy_answers_the_probe_as_the_model_does_at_every_size() {
    for own in [trained(ModelKind::Contextual), trained(ModelKind::HistoryOnly), attending()] {
        let known = own.probe(1).unwrap().remove(0);
        let mut copy = own.copy_on(&Device::CPU).unwrap();
        assert_eq!(copy.probe(3).unwrap(), vec![known.clone(); 3]);
        copy.head = None;
        for rows in [1, 2, 64] {
            let found = copy.probe(rows).unwrap();
            assert_eq!(found.len(), rows);
            let off = |found: &UnitVector| {
                let pairs = found.as_slice().iter().zip(known.as_slice());
                pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
            };
            assert!(found.iter().all(|found| off(found) <= 1e-5), "{rows} rows");
        }
        assert_eq!(copy.encoder_version(), own.encoder_version());
    }
}

#[test]
fn a_search_query_finds_what_it_names_even_misspelt() {
    let mut training = planted::training(300);
    training.synthetic_context.query_share = 0.5;
    let data = world(80, Clock::Milliseconds);
    let mut go_on = |_| ControlFlow::Continue(());
    let model = crate::train(&data, &SPLIT, &planted::model(ModelKind::Contextual), &training, &mut go_on).unwrap().0;
    let items: Vec<Item> = (0..planted::CATEGORIES).map(|category| item(category * planted::ITEMS_EACH + 2)).collect();
    let ads = model.embed_items(&items.iter().collect::<Vec<_>>()).unwrap();
    for (query, category) in [("teapot", 5), ("Fine TEAPOTS?", 5), ("lantrn", 2), ("a new bicycle", 4)] {
        let context = Context { subject: None, query: Some(query.to_owned()) };
        assert!(model.context_is_usable(&context), "{query}");
        let input = HeadInput { state: None, context: Some(&context), demographics: &Demographics::default() };
        let embedded = model.embed_queries(&[input]).unwrap().remove(0);
        let score = |ad: &UnitVector| dot(embedded.as_slice(), ad.as_slice());
        let best = (0..ads.len()).max_by(|a, b| score(&ads[*a]).total_cmp(&score(&ads[*b])));
        assert_eq!(best, Some(category), "{query}");
    }
}

#[test]
fn cross_attention_reads_events_that_the_last_state_alone_does_not_hold() {
    let model = attending();
    let demographics = Demographics::default();
    let history: Vec<Event> = (0..6).map(|at| event(at, at as i64 * 60_000)).collect();
    let state = model.encode(&[&history]).unwrap().remove(0);
    let last = state[state.len() - model.dimension()..].to_vec();
    let context = context(Some(3), None);
    let embed = |state: &[f32]| {
        let input = HeadInput { state: Some(state), context: Some(&context), demographics: &demographics };
        model.embed_queries(&[input]).unwrap().remove(0)
    };
    assert_ne!(embed(&state), embed(&last));
    let alone = embed(&state);
    let none = HeadInput { state: None, context: None, demographics: &demographics };
    let together = model.embed_queries(&[none, HeadInput { state: Some(&state), context: Some(&context), ..none }]);
    let difference = dot(together.unwrap()[1].as_slice(), alone.as_slice());
    assert!((difference - 1.0).abs() < 1e-5, "{difference}");
}

#[test]
fn a_state_of_fewer_bytes_asks_for_the_same_ads() {
    let model = attending();
    let demographics = Demographics::default();
    for user in 0..20 {
        let history: Vec<Event> = (0..20).map(|at| event((user * 31 + at * 7) % 480, at as i64 * 60_000)).collect();
        let exact = model.encode(&[&history]).unwrap().remove(0);
        let context = context(None, Some(user % planted::CATEGORIES));
        let embed = |state: &[f32]| {
            let input = HeadInput { state: Some(state), context: Some(&context), demographics: &demographics };
            model.embed_queries(&[input]).unwrap().remove(0)
        };
        for (precision, tolerance) in [(Precision::F32, 0.0), (Precision::F16, 2e-3), (Precision::Int8, 2e-2)] {
            let kept = SequenceState::new(&exact, model.dimension(), precision).unwrap();
            assert_eq!(kept.rows(), 20);
            let (found, expected) = (embed(&kept.values()), embed(&exact));
            let off = found.as_slice().iter().zip(expected.as_slice()).map(|(a, b)| (a - b).abs());
            let off = off.fold(0.0, f32::max);
            assert!(off <= tolerance, "{off} at {} for user {user}", precision.name());
        }
    }
}

#[test]
fn a_bad_state_is_an_error_that_says_which() {
    let model = trained(ModelKind::Contextual);
    let demographics = Demographics::default();
    let embed = |state: &[f32]| {
        let fine = HeadInput { state: None, context: None, demographics: &demographics };
        let bad = HeadInput { state: Some(state), ..fine };
        model.embed_queries(&[fine, bad]).unwrap_err().to_string()
    };
    assert_eq!(embed(&[0.5; 3]), "a state of 3 values where 1 x 16 at most are expected, in whole rows");
    assert_eq!(embed(&[0.5; 32]), "a state of 32 values where 1 x 16 at most are expected, in whole rows");
    assert_eq!(embed(&[f32::NAN; 16]), "row 1: component 0 is not finite");
}

#[test]
fn items_are_embedded_by_their_features_even_if_never_seen() {
    let model = trained(ModelKind::Contextual);
    let mut unseen = item(3);
    unseen.id = ItemId::from(777_777);
    let vectors = model.embed_items(&[&item(3), &unseen, &item(90)]).unwrap();
    let near = dot(vectors[0].as_slice(), vectors[1].as_slice());
    let far = dot(vectors[0].as_slice(), vectors[2].as_slice());
    assert!(near > far, "{near} {far}");
    let mut other = item(3);
    other.id = ItemId::from(888_888);
    let both = model.embed_items(&[&unseen, &other]).unwrap();
    assert_eq!(both[0], both[1], "an id that was never seen says nothing, whatever rows it shares");
}
