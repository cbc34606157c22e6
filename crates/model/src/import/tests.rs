use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;

use turret_retrieval::dataset::{Clock, Dataset};

use super::*;
use crate::planted::{self, InParts, SPLIT, world};
use crate::settings::{Fusion, ModelKind, ModelSettings, Split};

/// The tensors of a file, and its metadata.
struct File {
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
    metadata: Option<HashMap<String, String>>,
}

impl File {
    /// Those of a model, marked as `blueprint` asks for.
    fn of(model: &Model, blueprint: &Blueprint, dir: &Path) -> Self {
        model.save(&dir.join("model")).unwrap();
        let bytes = fs::read(dir.join("model/tensors.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = tensors
            .iter()
            .map(|(name, view)| (name.to_owned(), view.dtype(), view.shape().to_vec(), view.data().to_vec()))
            .collect();
        Self { tensors, metadata: Some(mark(serde_json::to_string(&blueprint.made_for()).unwrap())) }
    }

    fn write(&self, path: &Path) {
        let views = self
            .tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
        fs::write(path, safetensors::serialize(views, self.metadata.clone()).unwrap()).unwrap();
    }

    fn tensor(&mut self, name: &str) -> &mut (String, Dtype, Vec<usize>, Vec<u8>) {
        self.tensors.iter_mut().find(|tensor| tensor.0 == name).unwrap()
    }
}

fn mark(text: String) -> HashMap<String, String> {
    HashMap::from([(MARK.to_owned(), text)])
}

fn trained(data: &Dataset, settings: &ModelSettings) -> Model {
    let mut go_on = |_| ControlFlow::Continue(());
    crate::train(data, &SPLIT, settings, &planted::training(2), &mut go_on).unwrap().0
}

fn blueprint(data: &dyn turret_retrieval::dataset::Parts, settings: &ModelSettings) -> Blueprint {
    Blueprint::of(data, &SPLIT, settings, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

#[test]
fn the_tensors_of_a_training_are_imported_as_the_model_that_it_made() {
    let data = world(20, Clock::Milliseconds);
    let contextual = planted::model(ModelKind::Contextual);
    for settings in [
        contextual.clone(),
        planted::model(ModelKind::HistoryOnly),
        ModelSettings { fusion: Fusion::CrossAttention, content_embedding: true, ..contextual },
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights.safetensors");
        let model = trained(&data, &settings);
        let blueprint = blueprint(&InParts::of(&data, 3), &settings);
        File::of(&model, &blueprint, dir.path()).write(&path);
        let imported = blueprint.import(&path).unwrap();
        let versions = |model: &Model| {
            let encoder = model.encoder_version().clone();
            (encoder, model.head_version().to_owned(), model.ad_tower_version().to_owned(), *model.split())
        };
        // Of tensors, settings, vocabularies and catalogue.
        assert_eq!(versions(&imported), versions(&model));
        imported.save(&dir.path().join("imported")).unwrap();
        let read = |model: &str, file: &str| fs::read(dir.path().join(model).join(file)).unwrap();
        for file in ["model.json", "tensors.safetensors", "catalogue.postcard"] {
            assert!(read("model", file) == read("imported", file), "{file} differs");
        }
    }
}

#[test]
fn the_layout_names_every_row_of_the_table_once() {
    let data = world(20, Clock::Milliseconds);
    let description = blueprint(&data, &planted::model(ModelKind::Contextual)).describe();
    let mut next = 0;
    for block in &description.features.table {
        assert_eq!(block.first, next, "{}", block.name);
        next += block.rows;
    }
    assert_eq!(description.tensors[0].shape, [next as usize, 16]);
    let rows = |name| description.features.table.iter().find(|block| block.name == name).unwrap().rows as usize;
    assert_eq!(rows("interests"), description.features.interests.len());
    assert_eq!(rows("countries"), description.features.countries.len() + 1);
    assert_eq!(rows("ages"), description.features.age_firsts.len() + 2);
}

/// A blueprint, and the weights of a model of it that may be changed before they are imported.
struct Weights {
    dir: tempfile::TempDir,
    model: Model,
    blueprint: Blueprint,
}

impl Weights {
    fn new() -> Self {
        let data = world(20, Clock::Milliseconds);
        let settings = planted::model(ModelKind::Contextual);
        let (model, blueprint) = (trained(&data, &settings), blueprint(&data, &settings));
        Self { dir: tempfile::tempdir().unwrap(), model, blueprint }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("weights.safetensors")
    }

    fn import(&self, change: &dyn Fn(&mut File)) -> Result<Model, ImportError> {
        let mut file = File::of(&self.model, &self.blueprint, self.dir.path());
        change(&mut file);
        file.write(&self.path());
        self.blueprint.import(&self.path())
    }
}

#[test]
fn half_precision_is_converted() {
    let weights = Weights::new();
    let gain = |dtype, one: [u8; 2]| {
        let change = |file: &mut File| {
            let tensor = file.tensor("ads.norm.gain");
            (tensor.1, tensor.3) = (dtype, one.repeat(16));
        };
        let imported = weights.import(&change).unwrap();
        imported.parameters.iter().find(|parameter| parameter.name == "ads.norm.gain").unwrap().values.clone()
    };
    assert_eq!(gain(Dtype::F16, 0x3E00_u16.to_le_bytes()), [1.5; 16]);
    assert_eq!(gain(Dtype::BF16, 0x3FC0_u16.to_le_bytes()), [1.5; 16]);
}

#[test]
fn wrong_weights_are_refused_by_name_with_what_was_found_and_wanted() {
    let weights = Weights::new();
    let check = |change: &dyn Fn(&mut File), expected: &[&str]| {
        let error = weights.import(change).map(drop).unwrap_err().to_string();
        let said = expected.iter().all(|text| error.contains(text));
        assert!(said && error.contains("weights.safetensors"), "{error} where {expected:?} was expected");
    };
    let rename = |file: &mut File| file.tensor("ads.norm.gain").0 = "ads.norm.weight".to_owned();
    check(
        &rename,
        &[
            "2 faults",
            "tensor ads.norm.gain is missing; wanted: F32 [16]",
            "tensor ads.norm.weight is not one of this model; found: F32 [16]",
        ],
    );
    let turn = |file: &mut File| file.tensor("ads.hidden.weight").2.reverse();
    check(&turn, &["tensor ads.hidden.weight: found F32 [32, 16], wanted F32 [16, 32] (torch.nn.Linear keeps"]);
    let flatten = |file: &mut File| file.tensor("head.no_history").2 = vec![16];
    check(&flatten, &["tensor head.no_history: found F32 [16], wanted F32 [1, 16]"]);
    let retype = |file: &mut File| file.tensor("ads.norm.bias").1 = Dtype::I32;
    check(&retype, &["tensor ads.norm.bias: found I32 [16], wanted F32 [16] (F16 and BF16"]);
    let spoil = |file: &mut File| file.tensor("table").3[80..84].copy_from_slice(&f32::NAN.to_le_bytes());
    check(&spoil, &["tensor table: found NaN at value 20 of", "wanted a finite number"]);
    check(&|file| file.metadata = None, &["its metadata has no `turret`", "turret model tensors --json"]);
    check(&|file| file.metadata = Some(mark("{".to_owned())), &["metadata `turret` is not JSON"]);
    let many = |file: &mut File| file.tensors.iter_mut().for_each(|tensor| tensor.0.insert_str(0, "module."));
    check(&many, &["faults", "tensor table is missing", "… and "]);

    let (path, blueprint) = (weights.path(), &weights.blueprint);
    fs::write(&path, b"PK\x03\x04 a pickle").unwrap();
    let error = blueprint.import(&path).map(drop).unwrap_err().to_string();
    assert!(error.contains("is no whole safetensors file"), "{error}");
    let endless = blueprint.import(Path::new("/dev/zero")).map(drop).unwrap_err().to_string();
    assert!(endless.starts_with("/dev/zero: is longer than "), "{endless}");
    assert!(matches!(blueprint.import(weights.dir.path()), Err(ImportError::File(FileError::Disk { .. }))));
}

#[test]
fn weights_for_something_else_are_refused_though_every_shape_fits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights.safetensors");
    let data = world(20, Clock::Milliseconds);
    let settings = planted::model(ModelKind::Contextual);
    let (model, made_for) = (trained(&data, &settings), blueprint(&data, &settings));
    File::of(&model, &made_for, dir.path()).write(&path);
    let check = |other: &Blueprint, expected: &str| {
        let error = other.import(&path).map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{error} where {expected} was expected");
    };
    let heads = ModelSettings { heads: 4, ..settings.clone() };
    check(&blueprint(&data, &heads), "made_for.settings.heads is 2 in the weights and 4 here");
    let mut items = data.items.to_vec();
    items[3].price = Some(9_000.0);
    let dearer = Dataset::new(items, Vec::new(), data.users.clone(), data.clock, data.events().to_vec());
    check(&blueprint(&dearer, &settings), "made_for.catalogue");
    let early = Split::temporal(planted::DAY_MS, 2 * planted::DAY_MS);
    let early = Blueprint::of(&data, &early, &settings, &mut |_, _| ControlFlow::Continue(())).unwrap();
    check(&early, "cut_ms");
}

#[test]
fn what_no_training_would_take_has_no_blueprint() {
    let settings = planted::model(ModelKind::Contextual);
    let of = |data: &Dataset, split: &Split, settings: &ModelSettings| {
        let blueprint = Blueprint::of(data, split, settings, &mut |_, _| ControlFlow::Continue(()));
        blueprint.map(drop).unwrap_err().to_string()
    };
    let data = world(3, Clock::Milliseconds);
    assert_eq!(of(&data, &SPLIT, &ModelSettings { heads: 0, ..settings.clone() }), "heads: is not in 1..=64");
    assert_eq!(of(&data, &Split::temporal(-9, -8), &settings), "the training part of the data holds no event");
    let order = world(3, Clock::Order);
    assert_eq!(of(&order, &SPLIT, &settings), "split: needs times, and the data has only an order");
    let broken_off = Blueprint::of(&data, &SPLIT, &settings, &mut |_, _| ControlFlow::Break(()));
    assert!(matches!(broken_off, Err(crate::BlueprintError::BrokenOff)));
}
