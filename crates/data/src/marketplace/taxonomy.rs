//! The interests of the marketplace: 20 roots of 10 leaves each.

/// How many roots there are.
pub(super) const ROOTS: usize = 20;
/// How many leaves each root has.
pub(super) const LEAVES_PER_ROOT: usize = 10;
/// How many leaves there are.
pub(super) const LEAVES: usize = ROOTS * LEAVES_PER_ROOT;

/// A leaf of the taxonomy, numbered root by root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Leaf(pub(super) u16);

impl Leaf {
    /// Every leaf.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..LEAVES as u16).map(Self)
    }

    /// The leaf of a root.
    pub(super) fn of(root: usize, position: usize) -> Self {
        Self((root * LEAVES_PER_ROOT + position) as u16)
    }

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The number of its root.
    pub(super) fn root(self) -> usize {
        self.index() / LEAVES_PER_ROOT
    }

    /// Its position within its root.
    pub(super) fn position(self) -> usize {
        self.index() % LEAVES_PER_ROOT
    }

    /// The name of its root, such as `home_decor`.
    pub(super) fn root_name(self) -> &'static str {
        TREE[self.root()].0
    }

    /// Its own name, such as `armchair`.
    pub(super) fn name(self) -> &'static str {
        TREE[self.root()].1[self.position()]
    }

    /// The id of the interest, such as `home_decor/armchair`.
    pub(super) fn id(self) -> String {
        format!("{}/{}", self.root_name(), self.name())
    }

    /// Its name as people would write it, such as `floor lamp`.
    pub(super) fn words(self) -> String {
        self.name().replace('_', " ")
    }

    /// The root's name as people would write it.
    pub(super) fn root_words(self) -> String {
        self.root_name().replace('_', " ")
    }
}

/// What precedes the leaf in titles and queries.
pub(super) const ADJECTIVES: [&str; 16] = [
    "classic", "modern", "vintage", "handmade", "compact", "premium", "light", "colorful", "minimal", "rustic",
    "everyday", "organic", "nordic", "bold", "soft", "smart",
];

#[rustfmt::skip]
const TREE: [(&str, [&str; LEAVES_PER_ROOT]); ROOTS] = [
    ("home_decor", ["armchair", "sofa", "rug", "floor_lamp", "wall_art", "curtains", "mirror", "bookshelf", "vase", "cushion"]),
    ("kitchen", ["cookware", "espresso_machine", "knife_set", "dinnerware", "blender", "bakeware", "kettle", "glassware", "spice_rack", "toaster"]),
    ("garden", ["planter", "lawn_mower", "patio_set", "seeds", "greenhouse", "barbecue", "hammock", "fountain", "pruning_shears", "bird_feeder"]),
    ("womens_fashion", ["dress", "blouse", "skirt", "heels", "handbag", "scarf", "jumpsuit", "cardigan", "jeans", "trench_coat"]),
    ("mens_fashion", ["shirt", "suit", "sneakers", "belt", "tie", "chinos", "hoodie", "leather_jacket", "loafers", "polo"]),
    ("beauty", ["lipstick", "serum", "perfume", "mascara", "sunscreen", "nail_polish", "shampoo", "face_mask", "foundation", "hair_dryer"]),
    ("jewelry", ["ring", "necklace", "bracelet", "earrings", "watch", "brooch", "anklet", "pendant", "cufflinks", "charm"]),
    ("fitness", ["yoga_mat", "dumbbell", "treadmill", "running_shoes", "kettlebell", "rowing_machine", "resistance_band", "foam_roller", "skipping_rope", "fitness_tracker"]),
    ("outdoors", ["tent", "sleeping_bag", "hiking_boots", "backpack", "camp_stove", "headlamp", "kayak", "climbing_rope", "trekking_poles", "cooler"]),
    ("travel", ["suitcase", "city_break", "beach_holiday", "cruise", "travel_pillow", "hostel", "road_trip", "safari", "ski_trip", "travel_adapter"]),
    ("electronics", ["headphones", "laptop", "smartphone", "tablet", "camera", "drone", "speaker", "monitor", "smart_home", "projector"]),
    ("games", ["board_game", "strategy_game", "racing_wheel", "gaming_chair", "controller", "puzzle", "card_game", "miniatures", "virtual_reality", "retro_console"]),
    ("books", ["crime_novel", "biography", "cookbook", "fantasy", "history", "poetry", "travel_guide", "comic", "science", "picture_book"]),
    ("music", ["guitar", "piano", "vinyl", "drum_kit", "microphone", "violin", "synthesizer", "concert", "ukulele", "turntable"]),
    ("crafts", ["knitting", "embroidery", "watercolor", "pottery", "sewing_machine", "calligraphy", "scrapbook", "origami", "candle_making", "leatherwork"]),
    ("baby", ["stroller", "crib", "baby_monitor", "diapers", "car_seat", "onesie", "high_chair", "pacifier", "play_mat", "baby_carrier"]),
    ("pets", ["dog_bed", "cat_tree", "aquarium", "leash", "pet_food", "bird_cage", "dog_toy", "litter_box", "terrarium", "grooming"]),
    ("food", ["coffee", "chocolate", "cheese", "pasta", "wine", "tea", "olive_oil", "spices", "snacks", "vegan"]),
    ("automotive", ["tires", "dash_cam", "motorcycle_helmet", "car_wash", "roof_rack", "seat_cover", "engine_oil", "electric_bike", "tool_kit", "car_audio"]),
    ("wedding", ["wedding_dress", "invitations", "bouquet", "wedding_ring", "venue", "wedding_cake", "favors", "photographer", "veil", "honeymoon"]),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_leaf_has_an_id_of_its_own_and_knows_its_root() {
        let ids: BTreeSet<String> = Leaf::all().map(Leaf::id).collect();
        assert_eq!(ids.len(), LEAVES);
        assert_eq!(Leaf::of(0, 3).id(), "home_decor/floor_lamp");
        assert_eq!((Leaf::of(0, 3).words(), Leaf::of(0, 3).root_words()), ("floor lamp".into(), "home decor".into()));
        assert!(Leaf::all().all(|leaf| Leaf::of(leaf.root(), leaf.position()) == leaf));
    }
}
