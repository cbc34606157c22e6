use std::ops::ControlFlow;

use turret_retrieval::context::Subject;
use turret_retrieval::dataset::Clock;
use turret_retrieval::event::EventType;
use turret_retrieval::ids::{InterestId, ItemId};
use turret_retrieval::item::Interest;
use turret_retrieval::vector::dot;

use super::*;
use crate::planted::{self, SPLIT, item, world};

fn trained(kind: ModelKind) -> Model {
    let data = world(40, Clock::Milliseconds);
    let mut go_on = |_| ControlFlow::Continue(());
    crate::train(&data, &SPLIT, &planted::model(kind), &planted::training(40), &mut go_on).unwrap().0
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
    let model = trained(ModelKind::Contextual);
    let short = [event(1, 0), event(2, 60_000)];
    // Longer than the encoder looks, with an item that it never saw.
    let long: Vec<Event> = (0..50).map(|at| event(if at == 45 { 999_999 } else { at as u64 }, at * 1_000)).collect();
    let together = model.encode(&[&short, &[], &long]).unwrap();
    assert_eq!(together[1], Vec::<f32>::new());
    for (history, state) in [(&short[..], &together[0]), (&long, &together[2]), (&long[30..], &together[2])] {
        assert_eq!(state.len(), model.state_dimension());
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
    check(&Context { subject: None, query: Some("a chair".to_owned()) }, false);
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

#[test]
fn a_bad_state_is_an_error_that_says_which() {
    let model = trained(ModelKind::Contextual);
    let demographics = Demographics::default();
    let embed = |state: &[f32]| {
        let fine = HeadInput { state: None, context: None, demographics: &demographics };
        let bad = HeadInput { state: Some(state), ..fine };
        model.embed_queries(&[fine, bad]).unwrap_err().to_string()
    };
    assert_eq!(embed(&[0.5; 3]), "a state of 3 values where 16 are expected");
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
}
