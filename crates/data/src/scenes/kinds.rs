//! The sixty kinds of object the suite can show, in six categories of ten.

/// What a kind of object belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Dogs, crabs, butterflies.
    Animal,
    /// Fruit and dishes.
    Food,
    /// What one travels in or on.
    Vehicle,
    /// Things found in a house.
    Household,
    /// Sky, weather and plants.
    Nature,
    /// Things to play with.
    Toy,
}

impl Category {
    /// Every category, in the order of [`NAMES`].
    pub const ALL: [Category; 6] =
        [Category::Animal, Category::Food, Category::Vehicle, Category::Household, Category::Nature, Category::Toy];

    /// The category of a kind.
    #[must_use]
    pub fn of(kind: usize) -> Category {
        Category::ALL[kind / PER_CATEGORY]
    }

    /// The kinds that belong to it.
    #[must_use]
    pub fn kinds(self) -> std::ops::Range<usize> {
        let first = self as usize * PER_CATEGORY;
        first..first + PER_CATEGORY
    }

    /// What several of them are called in a question.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Category::Animal => "animals",
            Category::Food => "foods",
            Category::Vehicle => "vehicles",
            Category::Household => "household items",
            Category::Nature => "natural things",
            Category::Toy => "toys",
        }
    }
}

/// Kinds in each category.
pub const PER_CATEGORY: usize = 10;

/// The name of each kind; a kind is an index into this table, ten for each category in turn.
pub const NAMES: [&str; 60] = [
    "dog",
    "cat",
    "rabbit",
    "fox",
    "panda",
    "frog",
    "turtle",
    "crab",
    "penguin",
    "butterfly",
    "apple",
    "banana",
    "grapes",
    "strawberry",
    "pineapple",
    "carrot",
    "pizza",
    "hamburger",
    "doughnut",
    "watermelon",
    "car",
    "bus",
    "bicycle",
    "rocket",
    "sailboat",
    "train",
    "tractor",
    "helicopter",
    "ambulance",
    "airplane",
    "key",
    "umbrella",
    "chair",
    "clock",
    "scissors",
    "hammer",
    "bell",
    "telephone",
    "book",
    "camera",
    "sun",
    "moon",
    "star",
    "cloud",
    "tree",
    "sunflower",
    "cactus",
    "mushroom",
    "fire",
    "snowflake",
    "ball",
    "kite",
    "balloon",
    "teddy",
    "robot",
    "puzzle",
    "dice",
    "drum",
    "skateboard",
    "doll",
];
