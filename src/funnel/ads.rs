//! The ads that compete, numbered.

use std::collections::HashMap;

use anyhow::{Context as _, bail};
use turret_retrieval::dataset::Dataset;
use turret_retrieval::ids::AdId;
use turret_retrieval::item::Item;

/// An active ad.
#[derive(Clone, Copy)]
pub(super) struct CompetingAd {
    /// Row of its item in the data set.
    pub(super) item: u32,
    /// Number of who pays.
    pub(super) advertiser: u32,
}

/// Every active ad of a data set, by number.
pub(super) struct Ads<'a> {
    pub(super) all: Vec<CompetingAd>,
    /// How many ads each advertiser has.
    pub(super) of_advertiser: Vec<u32>,
    numbers: HashMap<&'a AdId, u32>,
}

impl<'a> Ads<'a> {
    /// # Errors
    /// Where an ad names no advertiser, or an item that is not there; and where there is no active ad.
    pub(super) fn new(data: &'a Dataset) -> anyhow::Result<Self> {
        let rows: HashMap<&str, u32> = data.items.iter().zip(0..).map(|(item, row)| (item.id.as_str(), row)).collect();
        let mut advertisers: HashMap<&str, u32> = HashMap::new();
        let mut ads = Self { all: Vec::new(), of_advertiser: Vec::new(), numbers: HashMap::new() };
        for ad in data.ads.iter().filter(|ad| ad.is_active()) {
            let name = ad.advertiser().with_context(|| format!("ad {}: no advertiser", ad.id))?;
            let advertiser = *advertisers.entry(name).or_insert_with(|| {
                ads.of_advertiser.push(0);
                ads.of_advertiser.len() as u32 - 1
            });
            ads.of_advertiser[advertiser as usize] += 1;
            let item = *rows.get(ad.item.as_str()).with_context(|| format!("ad {}: no item {}", ad.id, ad.item))?;
            ads.numbers.insert(&ad.id, ads.all.len() as u32);
            ads.all.push(CompetingAd { item, advertiser });
        }
        if ads.all.is_empty() {
            bail!("no ad is active");
        }
        Ok(ads)
    }

    /// The number of an ad, where it competes.
    pub(super) fn number(&self, id: &AdId) -> Option<u32> {
        self.numbers.get(id).copied()
    }

    pub(super) fn ad(&self, number: u32) -> CompetingAd {
        self.all[number as usize]
    }

    /// The items that the ads promote, by the ads' numbers.
    pub(super) fn items<'d>(&self, data: &'d Dataset) -> Vec<&'d Item> {
        self.all.iter().map(|ad| &data.items[ad.item as usize]).collect()
    }
}
