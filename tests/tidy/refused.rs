//! Each rule can fail: a small tree that breaks it, and what the rule says.

use crate::tree::Tree;
use crate::{Rule, configuration, manifests, rules};

fn refuses(rule: Rule, files: &[(&str, &str)], fault: &str) {
    let faults = rule(&Tree::of(files));
    assert!(faults.iter().any(|found| found.contains(fault)), "`{fault}` is not among {faults:#?}");
}

fn accepts(rule: Rule, files: &[(&str, &str)]) {
    let faults = rule(&Tree::of(files));
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn names_that_say_nothing_are_refused() {
    refuses(rules::names, &[("src/gateway/mod.rs", "")], "src/gateway/mod.rs: a module is");
    refuses(rules::names, &[("src/Utils.rs", "")], "`Utils.rs` names no idea");
    refuses(rules::names, &[("tests/common/node.rs", "")], "`common` names no idea");
    accepts(rules::names, &[("src/gateway.rs", ""), ("src/commonality.rs", "")]);
}

#[test]
fn long_files_are_refused() {
    refuses(rules::length, &[("src/a.rs", &"\n".repeat(401))], "src/a.rs: 401 lines");
    accepts(rules::length, &[("src/a.rs", &"\n".repeat(400)), ("a.json", &"\n".repeat(900))]);
}

#[test]
fn runtimes_in_pure_files_are_refused() {
    refuses(rules::purity, &[("crates/index/src/shard.rs", "use tokio::sync;")], "names tokio");
    refuses(rules::purity, &[("actors/src/new.rs", "//! Pure: x\nuse ractor::Actor;")], "names ractor");
    refuses(rules::purity, &[("actors/src/new.rs", "//! Pure: x\n")], "is not listed");
    refuses(rules::purity, &[("actors/src/restart.rs", "//! Back-off.\n")], "restart.rs: must begin with `//! Pure:`");
    refuses(rules::purity, &[], "actors/src/restart.rs: listed as pure in tests/tidy/rules.rs, and not there");
}

#[test]
fn texts_that_are_sentences_are_refused() {
    refuses(rules::texts, &[("a.rs", r#"#[error("Shard is gone")]"#)], "a.rs:1: `Shard is gone` must begin");
    refuses(rules::texts, &[("a.rs", r#"bail!("no node.")"#)], "must end without a dot");
    refuses(rules::texts, &[("a.rs", "\ntracing::warn!(\n    %error, \"Dial failed\",\n)")], "a.rs:3: `Dial failed`");
    accepts(rules::texts, &[("a.rs", r#"#[error("{path}: TOML is refused")] // bail!("No.")"#)]);
}

#[test]
fn unknown_metrics_are_refused() {
    let catalogue = ("actors/tests/metrics_catalogue.txt", "turret_a_seconds{stage}\nturret_b_total");
    let named = |text: &'static str| [catalogue, ("deploy/rules.yml", text)];
    refuses(rules::metrics, &named("rate(turret_c_total[1m])"), "deploy/rules.yml: turret_c_total is not in");
    refuses(rules::metrics, &[("deploy/rules.yml", "")], "metrics_catalogue.txt: is not there");
    refuses(rules::metrics, &[("actors/tests/metrics_catalogue.txt", "")], "names no metric");
    accepts(rules::metrics, &named("turret_a_seconds_bucket{le=\"1\"} turret_b_total /usr/bin/turret"));
}

#[test]
fn links_that_lead_nowhere_are_refused() {
    refuses(rules::links, &[("docs/a.md", "\n[b](b.md)")], "docs/a.md:2: link to b.md leads nowhere");
    refuses(rules::links, &[("docs/a.md", "[b](../../b.md)"), ("b.md", "")], "leads nowhere");
    refuses(rules::links, &[("a.md", "[b]: docs/b.md")], "link to docs/b.md");
    accepts(rules::links, &[("docs/a.md", "[b](../b.md#part) [w](https://a.example) [c](#c) [d](./)"), ("b.md", "")]);
    accepts(rules::links, &[("a.md", "```\n[b](b.md)\n```")]);
}

#[test]
fn excuses_are_refused() {
    let ignored = format!("{}]\nfn a() {{}}", concat!("#[", "ignore"));
    let panics = format!("{}(expected = \"a\")]", concat!("#[should", "_panic"));
    refuses(rules::excuses, &[("a.rs", &ignored)], "a.rs:1: `#[");
    refuses(rules::excuses, &[("a.rs", &panics)], "is an excuse");
    let known = concat!("// FIX", "ME wrong");
    refuses(rules::excuses, &[("a.rs", known)], "without the number of its issue");
    accepts(rules::excuses, &[("a.rs", &format!("{known} (#12)"))]);
}

#[test]
fn imports_that_go_back_are_refused() {
    let manifest = |package: &str, rest: &str| format!("[package]\nname = \"{package}\"\n{rest}");
    let check = |path: &str, text: &str, fault: &str| refuses(manifests::doors, &[(path, text)], fault);
    let retrieval = manifest("turret-retrieval", "[dependencies]\ntokio.workspace = true");
    check("crates/retrieval/Cargo.toml", &retrieval, "turret-retrieval must not import tokio");
    let sibling = manifest("turret-model", "[dev-dependencies]\nturret-data.workspace = true");
    check("crates/model/Cargo.toml", &sibling, "turret-model must not import turret-data");
    let renamed = manifest("turret-index", "[dependencies]\nstore = { package = \"sled\", version = \"0.34\" }");
    check("crates/index/Cargo.toml", &renamed, "turret-index must not import sled; turret-store may");
    let targeted = manifest("turret-actors", "[target.'cfg(unix)'.dependencies]\nturret.path = \"..\"");
    check("actors/Cargo.toml", &targeted, "turret-actors must not import turret");
    let program = manifest("turret", "[dependencies]\nractor = \"0.16\"");
    check("Cargo.toml", &program, "turret must not import ractor; turret-actors may");
    check("crates/extra/Cargo.toml", "", "a package that ARCHITECTURE.md");
    check("actors/Cargo.toml", "[package", "actors/Cargo.toml: ");
    check("actors/Cargo.toml", &manifest("turret-behaviour", ""), "must be called turret-actors");
}

#[test]
fn releases_that_abort_are_refused() {
    let fault = "Cargo.toml: profile.release must say";
    refuses(manifests::unwinding, &[("Cargo.toml", "[profile.release]\npanic = \"abort\"")], fault);
    refuses(manifests::unwinding, &[("Cargo.toml", "[profile.release]")], fault);
    refuses(manifests::unwinding, &[], fault);
}

#[test]
fn keys_that_are_not_described_are_refused() {
    let source = ("src/config.rs", r#"let a = section.size("shards_max", 2, 1..=9);"#);
    let described = ("cluster-config/README.md", "`index.shards_max` and `shards`");
    let fault = "cluster-config/production.example.toml: the key shards_max is not described";
    refuses(configuration::described, &[source, described], fault);
    refuses(configuration::described, &[], "no key was found");
    accepts(
        configuration::described,
        &[source, described, ("cluster-config/production.example.toml", "shards_max = 1")],
    );
}

#[test]
fn unsound_configurations_are_refused() {
    let check = |text: &str, fault: &str| refuses(configuration::sound, &[("cluster-config/a.toml", text)], fault);
    check("[index]\nshards = 0", "cluster-config/a.toml: is refused");
    check("[index]\nshards = 0", "index.shards: 0 is not in 1..=1024");
    check("colour = 1", "colour: unknown key");
}
