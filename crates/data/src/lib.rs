//! Data sets: schema, Parquet reading, checks, the synthetic marketplace.
