//! How far long work is, and whether to go on with it.

use std::ops::ControlFlow;

/// How far the work is, told between two steps of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Rows done, over all files.
    pub done: u64,
    /// Rows in all.
    pub total: u64,
    /// What is being worked on: the name of a file.
    pub what: &'a str,
}

/// Is told of progress; [`ControlFlow::Break`] asks the work to stop.
pub(crate) type Watch<'a> = dyn FnMut(Progress<'_>) -> ControlFlow<()> + 'a;

/// Counts rows over several files and passes the count on.
pub(crate) struct Counter<'a, 'b> {
    done: u64,
    total: u64,
    watch: &'a mut Watch<'b>,
}

impl<'a, 'b> Counter<'a, 'b> {
    pub(crate) fn new(total: u64, watch: &'a mut Watch<'b>) -> Self {
        Self { done: 0, total, watch }
    }

    /// Adds `rows` of `what`.
    pub(crate) fn add(&mut self, rows: u64, what: &str) -> ControlFlow<()> {
        self.done += rows;
        (self.watch)(Progress { done: self.done, total: self.total, what })
    }
}
