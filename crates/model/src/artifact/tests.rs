use std::ops::ControlFlow;

use turret_retrieval::dataset::Clock;

use super::*;
use crate::model::HeadInput;
use crate::planted::{self, SPLIT, item, world};
use crate::settings::ModelKind;

fn trained(seed: u64) -> Model {
    let data = world(20, Clock::Milliseconds);
    let training = crate::TrainingSettings { seed, ..planted::training(2) };
    let mut go_on = |_| ControlFlow::Continue(());
    crate::train(&data, &SPLIT, &planted::model(ModelKind::Contextual), &training, &mut go_on).unwrap().0
}

#[test]
fn a_model_loads_as_it_was_saved() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let model = trained(1);
    let files = model.save(&path).unwrap();
    assert!(files.iter().all(|file| path.join(file).is_file()));
    assert_eq!(fs::read_dir(&path).unwrap().count(), files.len());
    let loaded = Model::load(&path).unwrap();
    assert_eq!(loaded.encoder_version(), model.encoder_version());
    assert_eq!((loaded.head_version(), loaded.ad_tower_version()), (model.head_version(), model.ad_tower_version()));
    assert_eq!(loaded.feature_schema(), model.feature_schema());
    assert_eq!(loaded.embed_items(&[&item(3)]).unwrap(), model.embed_items(&[&item(3)]).unwrap());
    let query = HeadInput { state: None, context: None, demographics: &Default::default() };
    assert_eq!(loaded.embed_queries(&[query]).unwrap(), model.embed_queries(&[query]).unwrap());
}

#[test]
fn saving_replaces_a_model_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let (first, second) = (trained(1), trained(2));
    first.save(&path).unwrap();
    fs::write(path.join("stray"), "of before").unwrap();
    second.save(&path).unwrap();
    assert_eq!(Model::load(&path).unwrap().encoder_version(), second.encoder_version());
    assert_eq!(fs::read_dir(&path).unwrap().count(), 3);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn a_damaged_model_is_one_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    trained(1).save(&path).unwrap();
    let check = |file: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>, rule: &str| {
        let own = path.join(file);
        let good = fs::read(&own).unwrap();
        fs::write(&own, change(good.clone())).unwrap();
        let error = Model::load(&path).unwrap_err().to_string();
        assert!(error.contains(rule) && error.contains(file), "{error} where {rule} was expected");
        fs::write(&own, good).unwrap();
    };
    let swap = |from: &'static str, to: &'static str| {
        move |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replacen(from, to, 1).into_bytes()
    };
    check(MANIFEST, &|_| Vec::new(), "EOF");
    check(MANIFEST, &swap("\"format\": 2", "\"format\": 7"), "format 7 where 2 is read");
    check(MANIFEST, &swap("\"heads\": 2", "\"heads\": 0"), "settings.heads: is not in 1..=64");
    check(MANIFEST, &swap("\"heads\"", "\"hands\""), "unknown field `hands`");
    check(MANIFEST, &swap("\"positions\": 20", "\"positions\": 0"), "out of range");
    check(TENSORS, &|bytes| bytes[..bytes.len() / 2].to_vec(), "digest");
    check(TENSORS, &|bytes| [&bytes[..], &[0]].concat(), "is longer than");
    check(
        CATALOGUE,
        &|mut bytes| {
            bytes[9] ^= 1;
            bytes
        },
        "digest",
    );
    fs::remove_file(path.join(TENSORS)).unwrap();
    assert!(matches!(Model::load(&path), Err(LoadError::File(FileError::Disk { .. }))));
    assert!(Model::load(dir.path()).is_err());
}

/// Tensors that the digest vouches for and that are nevertheless wrong.
#[test]
fn tensors_of_another_model_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    let check = |change: &dyn Fn(&mut Model), rule: &str| {
        let mut model = trained(1);
        change(&mut model);
        model.save(&path).unwrap();
        let error = Model::load(&path).unwrap_err().to_string();
        assert!(error.contains(rule), "{error} where {rule} was expected");
    };
    check(&|model| drop(model.parameters.remove(0)), "tensor encoder.0.attention_norm.gain is missing");
    check(&|model| model.parameters[1].values[2] = f32::NAN, "encoder.0.attention_norm.bias: value 2 is not finite");
    let reshape = |model: &mut Model| model.parameters[0].shape = vec![4, 4];
    check(&reshape, "tensor encoder.0.attention_norm.gain is F32 [4, 4] where F32 [16] is expected");
}
