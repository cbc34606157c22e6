//! User state on sled: event logs, sequence states, demographics.
