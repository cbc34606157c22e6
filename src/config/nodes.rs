//! The nodes of the cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use turret_actors::node::Role;
use turret_retrieval::ids::NodeName;

use super::reader::{Faults, Section};
use super::repeated;

/// One node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its name.
    pub name: NodeName,
    /// What it does.
    pub roles: Vec<Role>,
    /// Where callers reach it.
    pub http: SocketAddr,
    /// Where operators reach it.
    pub admin: SocketAddr,
    /// Where its peers reach it.
    pub cluster: Option<SocketAddr>,
}

/// Names of roles, as the file writes them.
const ROLES: [(&str, Role); 5] = [
    ("gateway", Role::Gateway),
    ("index", Role::Index),
    ("users", Role::Users),
    ("inference", Role::Inference),
    ("control", Role::Control),
];

/// Reads `[[nodes]]`; without any there is one node called `a` with every role, on the default ports.
pub(super) fn read(root: &Section<'_>, faults: &Faults) -> Vec<NodeConfig> {
    let sections = root.sections("nodes");
    if sections.is_empty() {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let roles = ROLES.iter().map(|(_, role)| *role).collect();
        let (http, admin) = (loopback(7101), loopback(7201));
        return vec![NodeConfig {
            name: NodeName::new("a").expect("`a` is a name"),
            roles,
            http,
            admin,
            cluster: None,
        }];
    }
    let several = sections.len() > 1;
    let nodes: Vec<NodeConfig> = sections.into_iter().map(|section| node(section, several)).collect();
    check_together(&nodes, faults);
    nodes
}

fn node(section: Section<'_>, several: bool) -> NodeConfig {
    let name = match NodeName::new(section.required_text("name")) {
        Ok(name) if name.as_str().chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') => name,
        Ok(_) => {
            section.fault("name", "must be letters, digits, - and _");
            unnamed()
        }
        // An absent name was reported already.
        Err(_) => unnamed(),
    };
    let node = NodeConfig {
        name,
        roles: roles(&section),
        http: address(&section, "http").unwrap_or_else(unusable),
        admin: address(&section, "admin").unwrap_or_else(unusable),
        cluster: match section.value("cluster") {
            None if several => {
                section.fault("cluster", "is required where there is more than one node");
                None
            }
            None => None,
            Some(_) => address(&section, "cluster"),
        },
    };
    section.finish();
    node
}

/// Stands in for a name that was refused, so that reading goes on.
fn unnamed() -> NodeName {
    NodeName::new("?").expect("`?` is a name")
}

/// Stands in for an address that was refused.
fn unusable() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 0))
}

fn address(section: &Section<'_>, key: &'static str) -> Option<SocketAddr> {
    let text = section.required_text(key);
    if text.is_empty() {
        return None;
    }
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            section.fault(key, format_args!("`{text}` is not an address such as 127.0.0.1:7101"));
            None
        }
    }
}

fn roles(section: &Section<'_>) -> Vec<Role> {
    let all = || ROLES.iter().map(|(_, role)| *role).collect();
    let Some(value) = section.value("roles") else { return all() };
    let names: Vec<&str> = value.as_array().into_iter().flatten().filter_map(toml::Value::as_str).collect();
    let known: Vec<&str> = ROLES.iter().map(|(name, _)| *name).collect();
    if names.is_empty() || names.len() != value.as_array().map_or(0, Vec::len) {
        section.fault("roles", format_args!("must be a list of {}", known.join(", ")));
        return all();
    }
    let mut roles = Vec::new();
    for name in names {
        match ROLES.iter().find(|(role, _)| *role == name) {
            Some((_, role)) => roles.push(*role),
            None => section.fault("roles", format_args!("`{name}` is not one of {}", known.join(", "))),
        }
    }
    roles
}

/// What one node alone cannot show: names and addresses used twice, and roles that nobody has.
fn check_together(nodes: &[NodeConfig], faults: &Faults) {
    if let Some(name) = repeated(nodes.iter().map(|node| &node.name)) {
        faults.add("nodes", format_args!("the name {name} is used twice"));
    }
    let mut taken: BTreeMap<SocketAddr, String> = BTreeMap::new();
    for (i, node) in nodes.iter().enumerate() {
        let addresses = [("http", Some(node.http)), ("admin", Some(node.admin)), ("cluster", node.cluster)];
        for (key, address) in addresses.into_iter().filter_map(|(key, address)| Some((key, address?))) {
            // Port 0 lets the system choose.
            if address.port() == 0 {
                continue;
            }
            let here = format!("nodes[{i}].{key}");
            match taken.get(&address) {
                Some(other) => faults.add(&here, format_args!("{address} is already used by {other}")),
                None => drop(taken.insert(address, here)),
            }
        }
    }
    let with = |role| nodes.iter().filter(|node| node.roles.contains(&role)).count();
    for (name, role) in ROLES {
        if with(role) == 0 {
            faults.add("nodes", format_args!("no node has the role {name}"));
        }
    }
    if with(Role::Control) > 1 {
        faults.add("nodes", "more than one node has the role control");
    }
}
