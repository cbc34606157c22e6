//! What a search of a shard costs at a recall, beside hnswlib, faiss and usearch: `just bench-index [SIZES] [DIMENSIONS]`.
//!
//! Everyone has the same vectors, from one file, and is asked one query a call on one thread. Each library's search parameter
//! is swept once; where its curve reaches a recall, the points around it are measured again in [`ROUNDS`] turns, one library after the
//! other, and the cost at the recall lies between them. Prints tables, and puts its rows into docs/results/index.json in place of
//! those of the same vectors. A published marketplace is asked by its own user tower, and real embeddings are read where
//! `TURRET_DATA` names the data sets.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use turret_index::{IndexSettings, Plan, ShardIndex};
use turret_retrieval::vector::UnitVector;

use self::curve::{Cost, Point, Reach, reach};
use self::embeddings::World;
use self::figures::Row;
use self::peer::{Built, Files, Peer};
use self::results::say;

#[path = "measuring/around.rs"]
mod around;
#[path = "index/curve.rs"]
mod curve;
#[path = "measuring/embeddings.rs"]
mod embeddings;
#[path = "index/figures.rs"]
mod figures;
#[path = "index/measured.rs"]
mod measured;
#[path = "measuring/median.rs"]
mod median;
#[path = "index/ours.rs"]
mod ours;
#[path = "index/peer.rs"]
mod peer;
#[path = "measuring/process.rs"]
mod process;
#[path = "measuring/published.rs"]
mod published;
#[path = "measuring/results.rs"]
mod results;
#[path = "index/scaling.rs"]
mod scaling;
#[path = "index/table.rs"]
mod table;
#[path = "measuring/thread.rs"]
mod thread;
#[path = "scan/worlds.rs"]
mod worlds;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Turns of each point; the median counts.
const ROUNDS: usize = 5;
const QUERIES: usize = 1_000;
const KS: [usize; 2] = [10, 100];
const TRUTH_K: usize = 100;
const TARGETS: [f64; 2] = [0.95, 0.99];
/// A sweep ends where it has found so much.
const ENOUGH: f64 = 0.997;
const THREADS: usize = 2;
/// A turn takes so long, about: the system counts the CPU time of a thread by milliseconds.
const TURN_US: f64 = 300_000.0;
/// Lists of a graph's walk; those shorter than `k` are left out.
const LISTS: [usize; 22] =
    [10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64, 80, 100, 110, 125, 150, 200, 250, 300, 400, 600, 1_000];
const PROBES: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
/// So many more than wanted are ranked anew by faiss's IVF-PQ.
const REFINED: [[usize; 3]; 2] = [[4, 16, 64], [2, 4, 16]];

/// Who searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Library {
    Turret,
    TurretCells,
    TurretScan,
    Hnswlib,
    FaissHnsw,
    Usearch,
    FaissIvfPq,
    FaissFlat,
}

impl Library {
    const ALL: [Self; 8] = [
        Self::Turret,
        Self::TurretCells,
        Self::TurretScan,
        Self::Hnswlib,
        Self::FaissHnsw,
        Self::Usearch,
        Self::FaissIvfPq,
        Self::FaissFlat,
    ];

    /// As rows and the worker name it.
    fn name(self) -> &'static str {
        match self {
            Self::Turret => "turret",
            Self::TurretCells => "turret-cells",
            Self::TurretScan => "turret-scan",
            Self::Hnswlib => "hnswlib",
            Self::FaissHnsw => "faiss-hnsw",
            Self::Usearch => "usearch",
            Self::FaissIvfPq => "faiss-ivfpq",
            Self::FaissFlat => "faiss-flat",
        }
    }

    /// What of Turret's a plan is measured as.
    fn of_plan(plan: Plan) -> Self {
        match plan {
            Plan::NearestCells => Self::TurretCells,
            Plan::Exact | Plan::ExactPostings => Self::TurretScan,
            Plan::Graph | Plan::PostFilter | Plan::AdaptiveList => Self::Turret,
        }
    }

    const OURS: [Self; 3] = [Self::Turret, Self::TurretCells, Self::TurretScan];

    /// Those that Turret is to be as cheap as.
    const GRAPHS: [Self; 3] = [Self::Hnswlib, Self::FaissHnsw, Self::Usearch];

    /// What it is built with: a degree, or a number of lists; nobody's where it is ours.
    fn builds(self, rows: usize) -> Vec<usize> {
        match self {
            Self::Turret | Self::TurretCells | Self::TurretScan => Vec::new(),
            // Both have twice the degree in their lowest layer, where the walk is: 32, as ours has, and 64.
            Self::Hnswlib | Self::FaissHnsw => vec![16, 32],
            Self::Usearch => vec![16],
            Self::FaissIvfPq => {
                let lists = (4.0 * (rows as f64).sqrt()) as usize;
                vec![(lists / 2).next_power_of_two(), lists.next_power_of_two()]
            }
            Self::FaissFlat => vec![0],
        }
    }

    /// Its curves for the best `k`, each a list of parameters in their order.
    fn sweeps(self, k: usize) -> Vec<Vec<usize>> {
        match self {
            Self::Turret | Self::Hnswlib | Self::FaissHnsw | Self::Usearch => {
                vec![LISTS.into_iter().filter(|list| *list >= k).collect()]
            }
            Self::TurretCells => vec![ours::LOOKS.to_vec()],
            Self::TurretScan | Self::FaissFlat => vec![vec![ours::SCAN]],
            Self::FaissIvfPq => {
                let refined = REFINED[KS.iter().position(|own| *own == k).unwrap_or(0)];
                // Two numbers in one, see benches/peers/index.py.
                refined.iter().map(|factor| PROBES.map(|probes| factor * 100_000 + probes).to_vec()).collect()
            }
        }
    }
}

/// A library that can be asked.
struct Contender {
    library: Library,
    /// What it was built with.
    build: usize,
    built: Built,
    /// Nobody where it is ours.
    peer: Option<Peer>,
}

/// Where a library reaches a recall at the least cost.
struct Best {
    contender: usize,
    reach: Reach,
    cost: Cost,
}

fn main() -> ExitCode {
    // `cargo bench` adds an argument of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let numbers = |text: &str| text.split(',').map(|number| number.parse().expect("SIZES are numbers")).collect();
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (python, generation, sizes, dimensions, trial): (&str, _, Vec<usize>, Vec<usize>, Option<&str>) = match texts[..]
    {
        ["scaling", ads_max] => {
            scaling::run(ads_max.parse().expect("ADS is a number"));
            return ExitCode::SUCCESS;
        }
        [python, generation, sizes, dimensions] => (python, generation, numbers(sizes), numbers(dimensions), None),
        // To try something: one round, nothing is written, and beside Turret only the libraries that are named.
        [python, generation, sizes, dimensions, "trial", libraries] => {
            (python, generation, numbers(sizes), numbers(dimensions), Some(libraries))
        }
        _ => {
            say(
                "error: run `just bench-index`, which knows a Python with the libraries and has a generation published",
            );
            return ExitCode::FAILURE;
        }
    };
    let made = dimensions.iter().flat_map(|dimension| sizes.iter().map(move |ads| (*dimension, *ads)));
    let made = made.map(|(dimension, ads)| worlds::clustered(dimension, ads, QUERIES));
    let made = made.map(|world| (world, Vec::new()));
    let rest = trial.is_none().then(|| {
        let real = worlds::real(QUERIES).into_iter().map(|world| (world, Vec::new()));
        std::iter::once(marketplace(generation)).chain(real)
    });
    let is_asked =
        |library: &Library| trial.is_none_or(|libraries| libraries.split(',').any(|name| name == library.name()));
    let libraries: Vec<Library> = Library::ALL.into_iter().filter(is_asked).collect();
    for (world, probes) in made.chain(rest.into_iter().flatten()) {
        let rows = measure(&world, &probes, python, &libraries, if trial.is_some() { 1 } else { ROUNDS });
        if trial.is_none() {
            figures::put("just bench-index", &group(&world), rows);
        }
    }
    ExitCode::SUCCESS
}

/// The ads of the generation in `dir`; every second of its probes is asked, and those between are what the shard is measured with.
fn marketplace(dir: &str) -> (World, Vec<UnitVector>) {
    let mut world = published::published(Path::new(dir));
    let mut at = 0..world.queries.len();
    let probes = world.queries.extract_if(.., |_| at.next().is_some_and(|at| at % 2 == 0)).collect();
    (world, probes)
}

/// How the rows of a world are named.
fn group(world: &World) -> String {
    format!("{}, {} ads", world.name, world.rows())
}

fn measure(world: &World, probes: &[UnitVector], python: &str, libraries: &[Library], rounds: usize) -> Vec<Row> {
    progress(&format!("{}: building", group(world)));
    let (index, built) = measured::build(world, probes, &ours::settings(THREADS));
    let by_default = ours::default_without_graph(world.rows(), THREADS);
    let by_default = by_default.map(|settings| measured::build(world, probes, &settings).1);
    let truth = truth(world, &index);
    let files = Files::write(&results::repository().join("target/tmp"), world, &truth);
    let mut contenders: Vec<Contender> = Library::OURS
        .map(|library| Contender { library, build: IndexSettings::default().degree, built: built.clone(), peer: None })
        .into();
    for library in libraries.iter().copied() {
        for build in library.builds(world.rows()) {
            progress(&format!("{}: building {} {build}", group(world), library.name()));
            let peer = Peer::start(python, library.name(), build, &files);
            contenders.push(Contender { library, build, built: peer.built.clone(), peer: Some(peer) });
        }
    }
    drop(files);
    let mut world = Measured { world, index, by_default, truth, contenders };
    let mut rows = table::builds(&world);
    for k in KS {
        let curves = world.sweep(k);
        rows.extend(table::sweeps(&world, k, &curves));
        let chosen = Library::of_plan(ours::chosen(&world.index, &world.world.queries, k));
        for target in TARGETS {
            progress(&format!("{}: recall@{k} of {target}", group(world.world)));
            let bests: BTreeMap<Library, Best> = Library::ALL
                .into_iter()
                .filter_map(|library| Some((library, world.best(library, target, &curves)?)))
                .collect();
            let costs: Vec<BTreeMap<Library, Cost>> = (0..rounds).map(|_| world.turn(k, &bests)).collect();
            let twice: Vec<BTreeMap<Library, Cost>> = (0..rounds.div_ceil(2)).map(|_| world.two(k, &bests)).collect();
            rows.push(table::at_recall(&world, (k, target, chosen), &bests, &costs, &twice));
        }
    }
    rows
}

/// A world with all who search it.
struct Measured<'a> {
    world: &'a World,
    index: ShardIndex,
    /// What building took by default, where that makes no graph.
    by_default: Option<Built>,
    truth: Vec<Vec<u32>>,
    contenders: Vec<Contender>,
}

/// By contender, the curves of one `k`.
type Curves = Vec<Vec<Vec<Point>>>;

impl Measured<'_> {
    fn run(&mut self, contender: usize, k: usize, parameter: usize, turns: usize) -> Point {
        match &mut self.contenders[contender].peer {
            Some(peer) => peer.run(k, parameter, turns),
            None => measured::run(&self.index, self.world, &self.truth, k, parameter, turns),
        }
    }

    /// Every parameter once, until enough is found.
    fn sweep(&mut self, k: usize) -> Curves {
        let mut curves = Vec::new();
        for contender in 0..self.contenders.len() {
            let library = self.contenders[contender].library;
            progress(&format!("{}: sweeping {} for the best {k}", group(self.world), library.name()));
            let mut own = Vec::new();
            for parameters in library.sweeps(k) {
                let mut points: Vec<Point> = Vec::new();
                for parameter in parameters {
                    if points.is_empty() {
                        // For the caches.
                        self.run(contender, k, parameter, 1);
                    }
                    points.push(self.run(contender, k, parameter, 1));
                    if points.last().is_some_and(|point| point.recall >= ENOUGH) {
                        break;
                    }
                }
                own.push(points);
            }
            curves.push(own);
        }
        curves
    }

    /// The cheapest curve of a library that reaches `target`.
    fn best(&self, library: Library, target: f64, curves: &Curves) -> Option<Best> {
        let own = (0..self.contenders.len()).filter(|at| self.contenders[*at].library == library);
        let reached = own.flat_map(|contender| curves[contender].iter().map(move |points| (contender, points)));
        let bests = reached.filter_map(|(contender, points)| {
            let reach = reach(points, target)?;
            Some(Best { contender, reach, cost: reach.cost_of(points) })
        });
        bests.min_by(|a, b| a.cost.cpu_us.total_cmp(&b.cost.cpu_us))
    }

    /// One library after the other.
    fn turn(&mut self, k: usize, bests: &BTreeMap<Library, Best>) -> BTreeMap<Library, Cost> {
        let mut costs = BTreeMap::new();
        for (library, best) in bests {
            let turns = self.turns(best);
            let below = best.reach.below.map(|below| self.run(best.contender, k, below, turns).cost);
            let from = self.run(best.contender, k, best.reach.from, turns).cost;
            costs.insert(*library, best.reach.cost(below, from));
        }
        costs
    }

    /// The same with two at once, at the parameter that reaches the recall.
    fn two(&mut self, k: usize, bests: &BTreeMap<Library, Best>) -> BTreeMap<Library, Cost> {
        let mut costs = BTreeMap::new();
        for (library, best) in bests {
            let (turns, parameter) = (self.turns(best), best.reach.from);
            let cost = match &mut self.contenders[best.contender].peer {
                Some(peer) => peer.run_twice(k, parameter, turns),
                None => measured::run_twice(&self.index, self.world, k, parameter, turns),
            };
            costs.insert(*library, cost);
        }
        costs
    }

    fn turns(&self, best: &Best) -> usize {
        (TURN_US / best.cost.cpu_us / self.world.queries.len() as f64).ceil() as usize
    }
}

/// The best rows of every query, best first.
fn truth(world: &World, index: &ShardIndex) -> Vec<Vec<u32>> {
    let found =
        world.queries.chunks(16).flat_map(|queries| index.scan_many(queries, TRUTH_K).expect("queries are good"));
    found.map(|hits| hits.iter().map(|hit| ours::number(&hit.ad)).collect()).collect()
}

fn progress(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}
