//! The funnel behind retrieval, simulated: generators propose ads, a frozen ranker scores them, a floor drops the
//! irrelevant ones, and a second-price auction sells the slots until the budgets are spent.
//!
//! It runs on a synthetic marketplace, whose planted truth says which clicks would follow and how well an ad suits a user
//! by style, quality and price, of which no model was told. The ranker learns from the log before the simulated day, on features that the towers do not have. Nothing here claims to
//! be a real funnel: what can be read from it is how generators compare with each other under the same rules.

use std::ops::ControlFlow;

use anyhow::{Context as _, bail};
use turret_data::LoggedRequest;
use turret_data::marketplace::Truth;
use turret_model::Model;
use turret_retrieval::dataset::Dataset;

mod ads;
mod asked;
mod auction;
mod contest;
mod features;
mod generators;
mod market;
mod ranker;
mod report;
mod words;

pub use generators::Generator;
pub use ranker::RankerQuality;
pub use report::{FunnelReport, Metrics, Row, Seed};

use ads::Ads;
use asked::Asked;
use auction::Micros;
use contest::{Entry, Proposers, Rules, simulate};
use features::{ClickRates, NAMES, Observations, Seen};
use generators::{Proposals, Sources};
use market::Market;
use ranker::{Examples, Ranker};

/// The most requests that are simulated; of more, evenly spaced ones are.
const REQUESTS_MAX: usize = 5_000;
/// The most requests that the ranker learns from: the latest.
const LEARNED_MAX: usize = 100_000;
/// The least price of an impression.
const RESERVE: Micros = Micros(10_000);
const DAY_MS: i64 = 86_400_000;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct FunnelSettings {
    /// One simulation each: of bids, budgets and the random generator.
    pub seeds: Vec<u64>,
    /// Ads that each generator proposes for a request.
    pub candidates: usize,
}

impl Default for FunnelSettings {
    fn default() -> Self {
        Self { seeds: vec![1, 2, 3], candidates: 100 }
    }
}

/// What a funnel is simulated from.
pub struct FunnelInputs<'a> {
    /// The marketplace.
    pub data: &'a Dataset,
    /// Its log of requests.
    pub log: &'a [LoggedRequest],
    /// What was planted in it.
    pub truth: &'a Truth,
    /// Trained on the events before the simulated day, with contexts.
    pub contextual: &'a Model,
    /// Trained on the same without.
    pub history_only: &'a Model,
    /// The simulated day begins, in ms since 1970-01-01 UTC; the ranker is held out on the 24 hours before.
    pub cut_ms: i64,
    /// It ends, exclusive.
    pub until_ms: i64,
}

/// How far a simulation is.
#[derive(Clone, Copy, Debug)]
pub struct FunnelProgress {
    /// Requests done, over all steps.
    pub done: u64,
    /// Requests to do, over all steps.
    pub total: u64,
    /// What is being done.
    pub what: &'static str,
}

/// One thing about the rules that is unlike the usual.
struct Scenario {
    name: &'static str,
    /// Times the click rate of the log.
    floor: f64,
    /// The deviation of the logarithm of a click's value.
    bid_spread: f64,
    slots: usize,
}

const USUAL: Scenario = Scenario { name: "", floor: 1.0, bid_spread: 0.8, slots: 4 };
const SCENARIOS: [Scenario; 7] = [
    USUAL,
    Scenario { name: "half the floor", floor: 0.5, ..USUAL },
    Scenario { name: "1.5 times the floor", floor: 1.5, ..USUAL },
    Scenario { name: "bid spread 0.4", bid_spread: 0.4, ..USUAL },
    Scenario { name: "bid spread 1.2", bid_spread: 1.2, ..USUAL },
    Scenario { name: "2 slots", slots: 2, ..USUAL },
    Scenario { name: "8 slots", slots: 8, ..USUAL },
];

/// Simulates the day under every set of rules with every seed.
///
/// # Errors
/// When the log, the data and the truth are not of one marketplace, the log is too small to train a ranker on, the day has
/// no requests, a model fails, or `observe` breaks off.
pub fn funnel(
    inputs: &FunnelInputs<'_>,
    settings: &FunnelSettings,
    observe: &mut dyn FnMut(FunnelProgress) -> ControlFlow<()>,
) -> anyhow::Result<FunnelReport> {
    let ads = Ads::new(inputs.data)?;
    let asked = Asked::join(inputs.log, inputs.data)?;
    let before = asked.partition_point(|asked| asked.log.timestamp_ms < inputs.cut_ms);
    let after = asked.partition_point(|asked| asked.log.timestamp_ms < inputs.until_ms);
    let observations = Observations::new(inputs.data, &ads, inputs.truth);
    let scene = Scene { inputs, ads: &ads, observations: &observations };
    let (ranker, rates, quality) = scene.learn(&asked[before.saturating_sub(LEARNED_MAX)..before])?;

    let today: Vec<Asked<'_>> = evenly(asked, before..after);
    if today.is_empty() {
        bail!("the log has no request on the simulated day, which the split's cut and until are");
    }
    let requests = today.len() as u64;
    let mut done = 0;
    let total = requests * (2 + settings.seeds.len() as u64);
    let mut step = |count: u64, what| {
        done += count;
        observe(FunnelProgress { done, total, what })
    };
    let sources = Sources { data: inputs.data, ads: &ads, cut_ms: inputs.cut_ms, candidates: settings.candidates };
    let contextual = sources.by_model(inputs.contextual, &today, &mut |count| step(count, "contextual"))?;
    let history_only = sources.by_model(inputs.history_only, &today, &mut |count| step(count, "history only"))?;
    let content = sources.by_content(&today);
    let popular = sources.by_popularity(today.len());
    let fixed = [contextual, history_only, content, popular];

    let mut measured: Vec<Vec<Vec<Seed>>> = vec![vec![Vec::new(); Generator::ALL.len()]; SCENARIOS.len()];
    for seed in &settings.seeds {
        let random = sources.by_chance(today.len(), *seed);
        let proposals: Vec<&Proposals> = fixed.iter().chain([&random]).collect();
        let pools = scene.pools(&today, &proposals, (&ranker, &rates))?;
        for (scenario, measured) in SCENARIOS.iter().zip(&mut measured) {
            let all = scene.under(scenario, &pools, ranker.click_rate(), *seed);
            let seeds = all.into_iter().map(|metrics| Seed { seed: *seed, metrics });
            measured.iter_mut().zip(seeds).for_each(|(measured, seed)| measured.push(seed));
        }
        if step(requests, "auctions").is_break() {
            bail!("broken off");
        }
    }
    let rows = SCENARIOS.iter().zip(measured).flat_map(|(scenario, measured)| {
        let named = Generator::ALL.into_iter().zip(measured);
        named.map(|(generator, seeds)| report::row(generator, scenario.name, seeds))
    });
    Ok(FunnelReport {
        title: "Funnel (simulated)",
        seeds: settings.seeds.clone(),
        requests: today.len(),
        ads: ads.all.len(),
        advertisers: ads.of_advertiser.len(),
        candidates: settings.candidates,
        ranker: quality,
        features: NAMES.to_vec(),
        rows: rows.collect(),
    })
}

/// Those in `range`; of more than [`REQUESTS_MAX`], evenly spaced ones.
fn evenly(asked: Vec<Asked<'_>>, range: std::ops::Range<usize>) -> Vec<Asked<'_>> {
    let stride = range.len().div_ceil(REQUESTS_MAX).max(1);
    asked.into_iter().skip(range.start).take(range.len()).step_by(stride).collect()
}

/// What every step of a simulation reads.
struct Scene<'a> {
    inputs: &'a FunnelInputs<'a>,
    ads: &'a Ads<'a>,
    observations: &'a Observations,
}

impl Scene<'_> {
    /// A ranker that learned from `asked` but for the last day, the click rates of all of it, and how good the ranker is
    /// on that day.
    fn learn(&self, asked: &[Asked<'_>]) -> anyhow::Result<(Ranker, ClickRates, RankerQuality)> {
        let mut rates = ClickRates::new(self.ads);
        let (mut known, mut held_out) = (Examples::default(), Examples::default());
        let held_out_from = self.inputs.cut_ms - DAY_MS;
        for asked in asked {
            let seen = Seen::new(asked, self.inputs.data, self.observations);
            let clicked = &asked.log.clicked;
            let shown: Vec<(u32, f64)> = asked
                .log
                .delivered
                .iter()
                .filter_map(|ad| Some((self.ads.number(ad)?, f64::from(u8::from(clicked.contains(ad))))))
                .collect();
            let examples = if asked.log.timestamp_ms < held_out_from { &mut known } else { &mut held_out };
            shown.iter().for_each(|(ad, clicked)| examples.push(seen.features(self.ads, *ad, &rates), *clicked));
            // Only now, so that an impression does not know its own click.
            shown.iter().for_each(|(ad, clicked)| rates.add(self.ads, *ad, *clicked));
        }
        let ranker = Ranker::fit(&known)?;
        let quality = ranker.judge(&held_out);
        Ok((ranker, rates, quality))
    }

    /// For each request, what was proposed by anyone, scored.
    fn pools(
        &self,
        asked: &[Asked<'_>],
        proposals: &[&Proposals],
        (ranker, rates): (&Ranker, &ClickRates),
    ) -> anyhow::Result<Vec<Vec<Entry>>> {
        let mut proposers = vec![Proposers::default(); self.ads.all.len()];
        let mut pools = Vec::with_capacity(asked.len());
        for (number, asked) in asked.iter().enumerate() {
            let mut union: Vec<u32> = Vec::new();
            for (generator, proposals) in Generator::ALL.into_iter().zip(proposals) {
                for ad in &proposals[number] {
                    let known = &mut proposers[*ad as usize];
                    if *known == Proposers::default() {
                        union.push(*ad);
                    }
                    *known = known.and(generator);
                }
            }
            let seen = Seen::new(asked, self.inputs.data, self.observations);
            let entry = |number: &u32| {
                let score = ranker.predict(&seen.features(self.ads, *number, rates));
                let ad = self.ads.ad(*number);
                let (truth, relevance) = self.truth(asked, ad.item)?;
                let proposers = std::mem::take(&mut proposers[*number as usize]);
                Some(Entry { ad: *number, advertiser: ad.advertiser, proposers, score: score as f32, truth, relevance })
            };
            let entries: Option<Vec<Entry>> = union.iter().map(entry).collect();
            let request = &asked.log.request_id;
            pools.push(entries.with_context(|| format!("request {request}: the truth is of another marketplace"))?);
        }
        Ok(pools)
    }

    /// How likely the user of a request clicks on an item's ad, and how well it suits by what is withheld.
    fn truth(&self, asked: &Asked<'_>, item: u32) -> Option<(f32, f32)> {
        let (truth, item) = (self.inputs.truth, &self.inputs.data.items[item as usize].id);
        let (request, user) = (&asked.log.request_id, &asked.log.user_id);
        Some((truth.click_probability(request, user, item)? as f32, truth.relevance(user, item)? as f32))
    }

    /// Every generator's numbers under the rules of `scenario`.
    fn under(&self, scenario: &Scenario, pools: &[Vec<Entry>], click_rate: f64, seed: u64) -> Vec<Metrics> {
        // As many slots as usual in every scenario, so that budgets stay the same.
        let day_cost = (pools.len() * USUAL.slots) as f64 * click_rate;
        let market = Market::draw(&self.ads.of_advertiser, scenario.bid_spread, day_cost, seed);
        let floor = (scenario.floor * click_rate) as f32;
        let rules = Rules { floor, slots: scenario.slots, reserve: RESERVE };
        let days = report::days(|among| simulate(pools, &market, &rules, among));
        report::metrics(pools, &days, &rules)
    }
}
