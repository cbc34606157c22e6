//! Whatever bytes are read as the text of a filter: the laws of `crates/retrieval/tests/filters/laws.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/retrieval/tests/filters/laws.rs"]
mod laws;

fuzz_target!(|text: &str| drop(laws::check_text(text)));
