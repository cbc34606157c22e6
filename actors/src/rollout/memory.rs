//! What a generation will take in memory, and what there is.

use std::fs;

use turret_retrieval::generation::Manifest;

/// What the graph of a shard takes, as a multiple of its file: a copy of the embeddings, the edges, and what is read at once.
const GRAPH_FACTOR: u64 = 2;
/// Kept free beside it, for what serves meanwhile.
const RESERVE: u64 = 64 << 20;

/// Whether the shards and the model of `manifest` fit beside what runs; with the figures either way.
pub(super) fn judge(manifest: &Manifest, available: Option<u64>) -> Result<String, String> {
    let of = |part: &str, factor: u64| {
        let files = manifest.files.iter().filter(|file| file.path.starts_with(part));
        files.map(|file| file.bytes.saturating_mul(factor)).fold(0, u64::saturating_add)
    };
    // A shard is in memory as it lies in its file, and once more with the graph; of users only a page cache is.
    let needed = of("shards/", 1 + GRAPH_FACTOR).saturating_add(of("model/", 2));
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let Some(available) = available else {
        return Ok(format!("about {:.0} MiB; how much is free is not known", mib(needed)));
    };
    let figures = format!("about {:.0} MiB of {:.0} MiB that are free", mib(needed), mib(available));
    if needed.saturating_add(RESERVE) <= available { Ok(figures) } else { Err(figures) }
}

/// Bytes that this process can still take: of the machine, and of its control group where that is less.
pub(super) fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| field_of(&text));
    let number = |name: &str| fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse::<u64>().ok();
    let group = number("memory.max").zip(number("memory.current")).map(|(max, used)| max.saturating_sub(used));
    machine.into_iter().chain(group).min()
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn field_of(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1_024)
}

#[cfg(test)]
mod tests {
    use turret_retrieval::generation::File;

    use super::super::fixture::manifest;
    use super::*;

    #[test]
    fn shards_and_model_are_counted_and_the_figures_told() {
        let sha256 = manifest().files[0].sha256.clone();
        let file = |path: &str, mib: u64| File { path: path.to_owned(), bytes: mib << 20, sha256: sha256.clone() };
        let files = vec![file("shards/0000.shard", 100), file("model/tensors.safetensors", 50), file("users/0", 9_000)];
        let manifest = Manifest { files, ..manifest() };
        assert_eq!(judge(&manifest, Some(464 << 20)).unwrap(), "about 400 MiB of 464 MiB that are free");
        assert_eq!(judge(&manifest, Some(463 << 20)).unwrap_err(), "about 400 MiB of 463 MiB that are free");
        assert!(judge(&manifest, None).unwrap().contains("not known"));
    }

    #[test]
    fn the_kernel_tells_what_is_free() {
        assert_eq!(field_of("MemTotal: 9 kB\nMemAvailable:    1234 kB\n"), Some(1_234 << 10));
        assert_eq!(field_of("MemTotal: 9 kB\n"), None);
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
