//! What a library costs at a recall, from what it costs along its search parameter.

/// One setting of a library, measured once or several times.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) parameter: usize,
    pub(crate) recall: f64,
    pub(crate) cost: Cost,
}

/// For one query, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) cpu_us: f64,
    pub(crate) wall_us: f64,
}

/// Where a curve reaches a recall: between two points, or at its first one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reach {
    /// The parameter below, where there is one.
    pub(crate) below: Option<usize>,
    /// The first parameter that reaches it.
    pub(crate) from: usize,
    /// How far it lies from `below` to `from`, in [0, 1].
    pub(crate) share: f64,
}

/// Where `points`, in the order of their parameter, first reach `target`.
pub(crate) fn reach(points: &[Point], target: f64) -> Option<Reach> {
    let at = points.iter().position(|point| point.recall >= target)?;
    let from = points[at].parameter;
    let Some(below) = at.checked_sub(1).map(|below| &points[below]) else {
        return Some(Reach { below: None, from, share: 1.0 });
    };
    let share = (target - below.recall) / (points[at].recall - below.recall);
    Some(Reach { below: Some(below.parameter), from, share })
}

impl Reach {
    /// The cost there, from those of the two points.
    pub(crate) fn cost(&self, below: Option<Cost>, from: Cost) -> Cost {
        let Some(below) = below else { return from };
        let between = |below: f64, from: f64| below + self.share * (from - below);
        Cost { cpu_us: between(below.cpu_us, from.cpu_us), wall_us: between(below.wall_us, from.wall_us) }
    }

    /// The same from `points`, where it was found.
    pub(crate) fn cost_of(&self, points: &[Point]) -> Cost {
        let cost = |parameter: usize| points.iter().find(|point| point.parameter == parameter).map(|point| point.cost);
        self.cost(self.below.and_then(cost), cost(self.from).expect("it is a point of these"))
    }
}
