//! Tables to read, and rows to keep.

use std::collections::BTreeMap;

use serde_json::json;

use super::curve::Cost;
use super::figures::Row;
use super::median::median;
use super::peer::Built;
use super::{Best, Contender, Curves, Library, Measured, group, ours, say};

/// What every index cost to build.
pub(crate) fn builds(measured: &Measured<'_>) -> Vec<Row> {
    let group = group(measured.world);
    let ads = measured.world.rows() as f64;
    say(&format!("\n{group}: building, on two threads\n"));
    say(
        "| index | version | CPU s | wall s | bytes an ad | a call that finds nothing, CPU µs |\n|---|---|---|---|---|---|",
    );
    let mut rows = Vec::new();
    let is_built =
        |contender: &&Contender| contender.library == Library::Turret || !Library::OURS.contains(&contender.library);
    for contender in measured.contenders.iter().filter(is_built) {
        let (name, built) = (name(contender), &contender.built);
        let (cpu_s, bytes_per_ad) = (built.cpu_s, built.bytes / ads);
        say(&format!(
            "| {name} | {} | {cpu_s:.1} | {:.1} | {bytes_per_ad:.0} | {:.1} |",
            built.version, built.wall_s, built.call_us
        ));
        let mean = [
            ("build_cpu_s", cpu_s),
            ("build_wall_s", built.wall_s),
            ("bytes_per_ad", bytes_per_ad),
            ("call_us", built.call_us),
        ];
        let row =
            Row::new(&format!("{group}: building {name}"), &group).run(&name).set("version", json!(built.version));
        rows.push(row.means(mean));
    }
    let of = |library: Library| measured.contenders.iter().find(|contender| contender.library == library);
    if let (Some(ours), Some(theirs)) = (of(Library::Turret), of(Library::Hnswlib)) {
        let over = |built: &Built| built.cpu_s / theirs.built.cpu_s;
        let ratio = over(&ours.built);
        say(&format!("\nbuilding, CPU, over that of {}: {ratio:.2}{}", name(theirs), verdict(ratio, 1.2)));
        let by_default = measured.by_default.as_ref().map(over);
        if let Some(ratio) = by_default {
            say(&format!("by default, without a graph: {ratio:.2}{}", verdict(ratio, 1.2)));
        }
        let ratios =
            std::iter::once(("build_ratio", ratio)).chain(by_default.map(|ratio| ("build_ratio_by_default", ratio)));
        rows.push(Row::new(&format!("{group}: building, over hnswlib"), &group).means(ratios));
    }
    rows
}

/// Every point of every curve, measured once.
pub(crate) fn sweeps(measured: &Measured<'_>, k: usize, curves: &Curves) -> Vec<Row> {
    let group = format!("{}, k {k}", group(measured.world));
    let mut rows = Vec::new();
    for (contender, curves) in measured.contenders.iter().zip(curves) {
        for points in curves {
            for point in points {
                let (factor, own) = (point.parameter / 100_000, shown(contender, point.parameter % 100_000));
                let run = if factor == 0 { name(contender) } else { format!("{}, refined {factor}", name(contender)) };
                let name = format!("{group}: {run}, {own}");
                let mean = [("recall", point.recall), ("cpu_us", point.cost.cpu_us), ("wall_us", point.cost.wall_us)];
                rows.push(Row::new(&name, &group).run(&run).set("parameter", json!(own)).means(mean));
            }
        }
    }
    rows
}

/// What everyone takes at a recall; Turret is `chosen`, what a shard chooses to do.
pub(crate) fn at_recall(
    measured: &Measured<'_>,
    (k, target, chosen): (usize, f64, Library),
    bests: &BTreeMap<Library, Best>,
    costs: &[BTreeMap<Library, Cost>],
    twice: &[BTreeMap<Library, Cost>],
) -> Row {
    let group = group(measured.world);
    say(&format!("\n{group}: recall@{k} of {target}, microseconds a query\n"));
    say(
        "| index | parameter | CPU | wall | CPU less an empty call | two at once: CPU | queries/s | Turret over it, CPU | less an empty call |",
    );
    say("|---|---|---|---|---|---|---|---|---|");
    let of = |rounds: &[BTreeMap<Library, Cost>], library: Library, figure: fn(&Cost) -> f64| {
        median(&rounds.iter().filter_map(|costs| costs.get(&library).map(figure)).collect::<Vec<_>>())
    };
    let call_us =
        |library: Library| bests.get(&library).map_or(0.0, |best| measured.contenders[best.contender].built.call_us);
    // Ratios are of one round each, and theirs counts.
    let ratio = |library: Library, is_net: bool| {
        let less = if is_net { call_us(library) } else { 0.0 };
        let ratio =
            |costs: &BTreeMap<Library, Cost>| Some(costs.get(&chosen)?.cpu_us / (costs.get(&library)?.cpu_us - less));
        median(&costs.iter().filter_map(ratio).collect::<Vec<_>>())
    };
    let mut row =
        Row::new(&format!("{group}: recall@{k} of {target}"), &group).set("k", json!(k)).set("target", json!(target));
    row = row.set("chosen", json!(chosen.name()));
    let mut mean = Vec::new();
    for library in Library::ALL {
        let Some(best) = bests.get(&library) else {
            say(&format!("| {} | not reached | | | | | | | |", library.name()));
            continue;
        };
        let contender = &measured.contenders[best.contender];
        let parameter = match best.reach.below {
            Some(below) => format!("{} to {}", shown(contender, below), shown(contender, best.reach.from)),
            None => shown(contender, best.reach.from).to_string(),
        };
        let (cpu, wall) = (of(costs, library, |cost| cost.cpu_us), of(costs, library, |cost| cost.wall_us));
        let (two, two_wall) = (of(twice, library, |cost| cost.cpu_us), of(twice, library, |cost| cost.wall_us));
        let (gross, net) = (ratio(library, false), ratio(library, true));
        say(&format!(
            "| {} | {parameter} | {cpu:.1} | {wall:.1} | {:.1} | {two:.1} | {:.0} | {gross:.2} | {net:.2} |",
            name(contender),
            cpu - call_us(library),
            2e6 / two_wall,
        ));
        let key = library.name().replace('-', "_");
        row =
            row.set(&format!("{key}.build"), json!(contender.build)).set(&format!("{key}.parameter"), json!(parameter));
        mean.push((format!("{key}_us"), cpu));
        mean.push((format!("{key}_wall_us"), wall));
        mean.push((format!("{key}_two_us"), two));
        mean.push((format!("{key}_two_per_s"), 2e6 / two_wall));
        if library != chosen {
            mean.push((format!("over_{key}"), gross));
            mean.push((format!("over_{key}_net"), net));
        }
    }
    for (is_net, key, what) in
        [(false, "over_best_graph", "as called"), (true, "over_best_graph_net", "less an empty call")]
    {
        let ratios = Library::GRAPHS.into_iter().filter(|library| bests.contains_key(library));
        let worst = ratios.map(|library| (ratio(library, is_net), library)).max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((ratio, library)) = worst.filter(|_| bests.contains_key(&chosen)) {
            say(&format!(
                "{}Turret, which takes {}, over the best graph of others, {} {what}: {ratio:.2}{}",
                if is_net { "" } else { "\n" },
                chosen.name(),
                library.name(),
                verdict(ratio, 1.1)
            ));
            mean.push((key.to_owned(), ratio));
        }
    }
    let rounds = costs.iter().map(|costs| {
        costs.iter().map(|(library, cost)| (format!("{}_us", library.name().replace('-', "_")), cost.cpu_us)).collect()
    });
    row.seeds(rounds.collect()).means(mean)
}

/// A parameter as readers know it.
fn shown(contender: &Contender, parameter: usize) -> usize {
    if contender.library == Library::TurretCells { parameter - ours::LOOKS[0] } else { parameter }
}

fn name(contender: &Contender) -> String {
    match contender.library {
        Library::Turret => format!("turret, degree {}", contender.build),
        Library::Hnswlib | Library::FaissHnsw | Library::Usearch => {
            format!("{}, M {}", contender.library.name(), contender.build)
        }
        Library::FaissIvfPq => format!("{}, {} lists", contender.library.name(), contender.build),
        Library::TurretCells | Library::TurretScan | Library::FaissFlat => contender.library.name().to_owned(),
    }
}

fn verdict(ratio: f64, limit: f64) -> String {
    if ratio <= limit {
        format!(" (at most {limit} is the target)")
    } else {
        format!(" **LOSS** ({limit} is the target)")
    }
}
