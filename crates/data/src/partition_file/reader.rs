//! Reading users from the file of their partition.

use std::path::{Path, PathBuf};

use arrow::datatypes::{FieldRef, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use turret_retrieval::hashing::partition_of;
use turret_retrieval::ids::UserId;
use turret_retrieval::kept::KeptUser;

use super::rows::{Broken, Rows};
use super::{PartitionHeader, USERS_PER_BATCH, schema};
use crate::fault::{Fault, ReadError};
use crate::table::{decode, next, open};

/// A file of a partition, whose users are taken from it some at a time.
pub struct PartitionReader {
    place: Place,
    header: PartitionHeader,
    users: u64,
    batches: ParquetRecordBatchReader,
    done: u64,
    last: Option<UserId>,
}

/// Where a fault is.
struct Place {
    dir: PathBuf,
    file: String,
}

impl PartitionReader {
    /// Opens the file at `path`, and checks its metadata and its columns. Reads no rows.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let place = Place {
            dir: path.parent().unwrap_or(Path::new("")).to_owned(),
            file: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        };
        let (file, metadata) = open(path).map_err(|rule| place.fault(None, None, rule))?;
        let about = metadata.metadata().file_metadata();
        let users = about.num_rows().unsigned_abs();
        let pairs = about.key_value_metadata().map_or(&[][..], Vec::as_slice);
        let header = PartitionHeader::of_metadata(pairs).map_err(|rule| place.fault(None, None, rule))?;
        let columns = check(metadata.schema()).map_err(|(column, rule)| place.fault(Some(&column), None, rule))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
        let mask = ProjectionMask::roots(builder.parquet_schema(), columns);
        let batches = decode(|| Ok(builder.with_projection(mask).with_batch_size(USERS_PER_BATCH).build()?))
            .map_err(|error| place.fault(None, None, format!("cannot be decoded: {error}")))?;
        Ok(Self { place, header, users, batches, done: 0, last: None })
    }

    /// What it says of its partition.
    pub fn header(&self) -> &PartitionHeader {
        &self.header
    }

    /// How many users it says it has.
    pub fn users(&self) -> u64 {
        self.users
    }

    /// The next users, at most [`USERS_PER_BATCH`], in the order of the bytes of their ids; none at the end. After an error
    /// there is nothing more to be read.
    ///
    /// # Errors
    /// The first fault, by column and row.
    pub fn next_users(&mut self) -> Result<Option<Vec<KeptUser>>, ReadError> {
        let Some(batch) = next(&mut self.batches) else { return Ok(None) };
        let cut_off = |error| format!("cannot be decoded from row {} on: {error}", self.done);
        let batch = batch.map_err(|error| self.place.fault(None, None, cut_off(error)))?;
        let rows = Rows::new(&batch);
        let mut users = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            let user = rows.user(row).and_then(|user| self.belongs(&user.user).map(|()| user));
            let user = user.map_err(|Broken { column, rule }| self.place.fault(Some(column), Some(self.done), rule))?;
            self.last = Some(user.user.clone());
            self.done += 1;
            users.push(user);
        }
        Ok(Some(users))
    }

    /// Whether `user` may stand here, after the one before.
    fn belongs(&self, user: &UserId) -> Result<(), Broken> {
        let broken = |rule| Err(Broken { column: "user_id", rule });
        match &self.last {
            Some(last) if last == user => return broken(format!("`{user}` is there twice")),
            Some(last) if last > user => return broken(format!("`{user}` must stand before `{last}`")),
            Some(_) | None => {}
        }
        let PartitionHeader { partition, partitions, .. } = self.header;
        match partition_of(user, partitions) {
            belongs if belongs == partition => Ok(()),
            belongs => broken(format!("`{user}` belongs to partition {belongs} of {partitions}, not {partition}")),
        }
    }
}

impl Place {
    fn fault(&self, column: Option<&str>, row: Option<u64>, rule: String) -> ReadError {
        let (file, column) = (self.file.clone(), column.map(str::to_owned));
        ReadError::Invalid { dir: self.dir.clone(), fault: Fault { file, column, row, rule } }
    }
}

/// Where in the file the columns are, each of exactly its type; else the one that is not, and why. Others are ignored.
fn check(found: &Schema) -> Result<Vec<usize>, (String, String)> {
    let position = |field: &FieldRef| {
        let mut named = (0..found.fields().len()).filter(|position| found.field(*position).name() == field.name());
        let position = named.next().ok_or("is missing")?;
        if named.next().is_some() {
            return Err("is there twice".to_owned());
        }
        let (is, must) = (found.field(position), field.data_type());
        if is.data_type() != must {
            return Err(format!("is {}, must be {must}", is.data_type()));
        }
        if is.is_nullable() && !field.is_nullable() {
            return Err("may be null, and must not".to_owned());
        }
        Ok(position)
    };
    schema().fields().iter().map(|field| position(field).map_err(|rule| (field.name().clone(), rule))).collect()
}
