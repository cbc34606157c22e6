//! Weights that were trained elsewhere, such as in PyTorch, made into a model.
//!
//! A file of safetensors, with what it was made for under [`MARK`] in its metadata. Whatever would give a model that runs
//! and answers wrongly is refused: tensors of other names or shapes, numbers that are not finite, weights for other
//! settings or another data set.

use std::fmt;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;

use crate::blueprint::{Blueprint, TensorShape};
use crate::difference::differ;
use crate::file_error::{FileError, read};
use crate::model::Model;
use crate::parameters::Parameter;

/// The key of the metadata under which [`MadeFor`](crate::MadeFor) stands, as JSON.
const MARK: &str = "turret";
/// What a file may hold besides the numbers: names, shapes, metadata.
const HEADER_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a number in a file that is read at all; what is wrong with one of `f64` shall be told by tensor.
const VALUE_BYTES_MAX: u64 = 8;
/// Faults that are shown.
const SHOWN_MAX: usize = 8;

/// Why weights are not a model.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A file cannot be read, or is not what it should be.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file does not say what it was made for.
    #[error(
        "{path}: its metadata has no `{MARK}`: save the weights with metadata={{\"{MARK}\": json.dumps(made_for)}}, with \
         `made_for` as `turret model tensors --json` prints it"
    )]
    Unmarked {
        /// The file.
        path: PathBuf,
    },
    /// The weights were made for another model.
    #[error(
        "{path}: {field} is {theirs} in the weights and {ours} here: they are of another configuration or other data"
    )]
    OtherModel {
        /// The file.
        path: PathBuf,
        /// The first thing that differs.
        field: String,
        /// What it is in the weights.
        theirs: String,
        /// What it is here.
        ours: String,
    },
    /// Tensors are not those of the model.
    #[error("{path}: {faults}")]
    Tensors {
        /// The file.
        path: PathBuf,
        /// All of them.
        faults: TensorFaults,
    },
    /// An operation failed.
    #[error("tensor operation: {0}")]
    Operation(#[from] candle_core::Error),
}

/// What is wrong with a tensor.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TensorFault {
    /// It is not there.
    #[error("tensor {name} is missing; wanted: F32 {wanted:?}")]
    Missing {
        /// Its name.
        name: String,
        /// Its shape.
        wanted: Vec<usize>,
    },
    /// It is there, and the model has none of this name.
    #[error("tensor {name} is not one of this model; found: {found}")]
    Extra {
        /// Its name.
        name: String,
        /// Its type and shape.
        found: String,
    },
    /// It has another shape, or numbers of another type.
    #[error("tensor {name}: found {found}, wanted F32 {wanted:?}{hint}")]
    Other {
        /// Its name.
        name: String,
        /// Its type and shape.
        found: String,
        /// The shape that it should have.
        wanted: Vec<usize>,
        /// What the author may have overlooked, in brackets; or nothing.
        hint: &'static str,
    },
    /// A number in it is none.
    #[error("tensor {name}: found {found} at value {position} of {values}, wanted a finite number")]
    NotFinite {
        /// Its name.
        name: String,
        /// Its first number that is not finite.
        found: f32,
        /// Where that is, counted from 0, row by row.
        position: usize,
        /// How many numbers it has.
        values: usize,
    },
}

/// At least one fault of tensors, in the order of the model's tensors, then of what is too much.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorFaults(pub Vec<TensorFault>);

impl fmt::Display for TensorFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [fault] = self.0.as_slice() {
            return fault.fmt(f);
        }
        write!(f, "{} faults", self.0.len())?;
        self.0.iter().take(SHOWN_MAX).try_for_each(|fault| write!(f, "\n  {fault}"))?;
        match self.0.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\n  … and {more} more"),
        }
    }
}

impl Blueprint {
    /// Makes the weights in the file at `path` a model. Rows of the table that are all zero count as never trained.
    ///
    /// # Errors
    /// When the file cannot be read or is no safetensors file, does not say what it was made for or was made for
    /// something else, a tensor is missing, too much, or of another shape or type, or a number is not finite.
    pub fn import(&self, path: &Path) -> Result<Model, ImportError> {
        let malformed = |rule: String| FileError::malformed(path, rule);
        let wanted = self.tensors();
        let numbers: u64 = wanted.iter().map(|tensor| tensor.values() as u64).sum();
        let bytes = read(path, HEADER_BYTES_MAX + VALUE_BYTES_MAX * numbers)?;
        let tensors = SafeTensors::deserialize(&bytes)
            .map_err(|error| malformed(format!("is no whole safetensors file: {error}")))?;
        // Of weights for something else, that says more than any tensor's shape.
        self.check_mark(path, &bytes)?;
        let faults = |faults| ImportError::Tensors { path: path.to_owned(), faults: TensorFaults(faults) };
        let found = shape_faults(&wanted, &tensors);
        if !found.is_empty() {
            return Err(faults(found));
        }
        let mut parameters = Vec::with_capacity(wanted.len());
        for TensorShape { name, shape } in wanted {
            let view = tensors.tensor(&name).map_err(|error| malformed(error.to_string()))?;
            let values = values(&view)?;
            if let Some(position) = values.iter().position(|value| !value.is_finite()) {
                let fault = TensorFault::NotFinite { name, found: values[position], position, values: values.len() };
                return Err(faults(vec![fault]));
            }
            parameters.push(Parameter { name, shape, values });
        }
        let table = parameters.remove(0).values;
        Ok(self.model(parameters, table)?)
    }

    /// Refuses weights that were made for something else.
    fn check_mark(&self, path: &Path, bytes: &[u8]) -> Result<(), ImportError> {
        let malformed = |rule: String| FileError::malformed(path, rule);
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| malformed(error.to_string()))?;
        let mark = header.metadata().as_ref().and_then(|metadata| metadata.get(MARK));
        let mark = mark.ok_or_else(|| ImportError::Unmarked { path: path.to_owned() })?;
        let theirs: Value =
            serde_json::from_str(mark).map_err(|error| malformed(format!("metadata `{MARK}` is not JSON: {error}")))?;
        let ours = serde_json::to_string(&self.made_for()).expect("settings and digests are JSON");
        // Through text, as theirs came: a number has one form then.
        let ours: Value = serde_json::from_str(&ours).expect("what was written is JSON");
        // What a person can read comes first: with other settings or another split the digests differ too.
        let parts = ["settings", "timed", "split", "feature_schema", "catalogue"];
        match parts.iter().find_map(|part| differ(&format!("made_for.{part}"), &theirs[part], &ours[part])) {
            Some((field, theirs, ours)) => Err(ImportError::OtherModel { path: path.to_owned(), field, theirs, ours }),
            None => Ok(()),
        }
    }
}

/// Everything that names, shapes and types tell.
fn shape_faults(wanted: &[TensorShape], tensors: &SafeTensors<'_>) -> Vec<TensorFault> {
    let said = |view: &TensorView<'_>| format!("{:?} {:?}", view.dtype(), view.shape());
    let fault = |TensorShape { name, shape }: &TensorShape| {
        let (name, wanted) = (name.clone(), shape.clone());
        let Ok(view) = tensors.tensor(&name) else { return Some(TensorFault::Missing { name, wanted }) };
        if view.shape() == shape && dtype(view.dtype()).is_some() {
            return None;
        }
        let is_turned = shape.len() == 2 && view.shape().iter().rev().eq(shape) && view.shape() != shape;
        let hint = match dtype(view.dtype()) {
            None => " (F16 and BF16 are converted, and no other type)",
            Some(_) if is_turned => " (torch.nn.Linear keeps [out, in]: save its transpose)",
            Some(_) => "",
        };
        Some(TensorFault::Other { name, found: said(&view), wanted, hint })
    };
    let mut faults: Vec<TensorFault> = wanted.iter().filter_map(fault).collect();
    let mut extra: Vec<(&str, TensorView<'_>)> =
        tensors.iter().filter(|(name, _)| wanted.iter().all(|tensor| tensor.name != *name)).collect();
    extra.sort_by_key(|(name, _)| *name);
    faults.extend(extra.iter().map(|(name, view)| TensorFault::Extra { name: (*name).to_owned(), found: said(view) }));
    faults
}

/// What candle calls a type that is read.
fn dtype(dtype: Dtype) -> Option<DType> {
    [(Dtype::F32, DType::F32), (Dtype::F16, DType::F16), (Dtype::BF16, DType::BF16)]
        .into_iter()
        .find_map(|(theirs, ours)| (theirs == dtype).then_some(ours))
}

fn values(view: &TensorView<'_>) -> candle_core::Result<Vec<f32>> {
    let dtype = dtype(view.dtype()).expect("other types are faults of the shape");
    Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?
        .to_dtype(DType::F32)?
        .flatten_all()?
        .to_vec1()
}

#[cfg(test)]
mod tests;
