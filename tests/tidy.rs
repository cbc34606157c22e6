//! The rules of this repository that no lint knows, each a test of its own. A failure names the file and the rule.

use tree::Tree;

#[path = "tidy/configuration.rs"]
mod configuration;
#[path = "tidy/manifests.rs"]
mod manifests;
#[path = "tidy/refused.rs"]
mod refused;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/rust_source.rs"]
mod rust_source;
#[path = "tidy/tree.rs"]
mod tree;

/// A rule: the faults of a tree, each beginning with the file's path.
type Rule = fn(&Tree) -> Vec<String>;

fn holds(rule: Rule) {
    let faults = rule(&Tree::of_repository());
    assert!(faults.is_empty(), "faults:\n  {}", faults.join("\n  "));
}

#[test]
fn files_are_named_by_their_idea() {
    holds(rules::names);
}

#[test]
fn files_are_short() {
    holds(rules::length);
}

#[test]
fn imports_go_one_way_and_heavy_dependencies_have_one_door() {
    holds(manifests::doors);
}

#[test]
fn releases_unwind() {
    holds(manifests::unwinding);
}

#[test]
fn pure_files_name_no_runtime() {
    holds(rules::purity);
}

#[test]
fn error_and_log_texts_are_lower_case_without_a_final_dot() {
    holds(rules::texts);
}

#[test]
fn metrics_named_in_deploy_are_in_the_catalogue() {
    holds(rules::metrics);
}

#[test]
fn relative_links_resolve() {
    holds(rules::links);
}

#[test]
fn tests_run_and_known_faults_have_an_issue() {
    holds(rules::excuses);
}

#[test]
fn every_key_of_the_configuration_is_described() {
    holds(configuration::described);
}

#[test]
fn every_committed_configuration_is_sound() {
    holds(configuration::sound);
}
