//! What the process holds.

#[expect(unsafe_code, reason = "the allocator is C, and tells of this one function by its name only")]
// SAFETY: mimalloc, which is linked as the allocator, defines it so; it may be called at any time.
unsafe extern "C" {
    safe fn mi_collect(force: bool);
}

/// Memory of this process, in bytes, after what is free was given back to the system: how much of it is still held otherwise is chance.
pub(crate) fn resident() -> f64 {
    // The second gives back what the first found to be free.
    mi_collect(true);
    mi_collect(true);
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    kib.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") * 1024.0
}

/// Of the 512 small pages of a huge one, how many the kernel fills with zeros at most, where a program gave them back, to make one; none where it
/// knows no huge pages. Linux is set to 511 unless somebody changed it: what a program holds depends on when it came by then.
pub(crate) fn pages_filled_max() -> f64 {
    let set = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/khugepaged/max_ptes_none");
    set.map_or(0.0, |set| set.trim().parse().expect("a number"))
}
