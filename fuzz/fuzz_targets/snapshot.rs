//! Whatever bytes are opened as the file of a shard, as they are or as edits of a sound one with its checksums made right: the laws of
//! `crates/index/tests/snapshot/laws.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/index/tests/snapshot/laws.rs"]
mod laws;

fuzz_target!(|input: &[u8]| {
    let Some((how, rest)) = input.split_first() else { return };
    if how.is_multiple_of(8) {
        drop(laws::check(rest));
    } else {
        let mut bytes = laws::edited(rest);
        laws::seal(&mut bytes);
        drop(laws::check(&bytes));
    }
});
