//! What there is on Veyra, and what is known of each kind.

/// The sorts of things that Veyra's encyclopaedia describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    River,
    Plant,
    Animal,
    Town,
    Person,
}

/// Where an attribute's value comes from.
pub enum Domain {
    /// A phrase of the class `kind.attribute`.
    Phrase,
    /// A phrase of that class that no other entity has.
    Unique,
    /// A whole number from the first to the second.
    Number(i64, i64),
    /// An entity of this kind, which must stand earlier in `Kind::ALL`.
    Link(Kind),
    /// The sum of two other attributes: follows from them and costs nothing.
    Sum(&'static str, &'static str),
}

impl Kind {
    /// In the order in which they are drawn.
    pub const ALL: [Kind; 5] = [Kind::River, Kind::Plant, Kind::Animal, Kind::Town, Kind::Person];

    /// The first part of the kind's class names.
    pub fn key(self) -> &'static str {
        match self {
            Kind::River => "river",
            Kind::Plant => "plant",
            Kind::Animal => "animal",
            Kind::Town => "town",
            Kind::Person => "person",
        }
    }

    /// How many there are.
    pub fn count(self) -> usize {
        match self {
            Kind::River => 12,
            Kind::Plant => 20,
            Kind::Animal => 26,
            Kind::Town | Kind::Person => 28,
        }
    }

    /// The attributes, in the order in which they are drawn.
    pub fn domains(self) -> &'static [(&'static str, Domain)] {
        match self {
            Kind::River => {
                &[("source", Domain::Phrase), ("mouth", Domain::Phrase), ("length", Domain::Number(30, 899)), ("colour", Domain::Phrase)]
            }
            Kind::Plant => &[
                ("flower", Domain::Phrase),
                ("month", Domain::Phrase),
                ("soil", Domain::Phrase),
                ("use", Domain::Phrase),
                ("height", Domain::Number(4, 290)),
            ],
            Kind::Animal => &[
                ("colour", Domain::Phrase),
                ("food", Domain::Phrase),
                ("habitat", Domain::Phrase),
                ("active", Domain::Phrase),
                ("young", Domain::Number(2, 12)),
                ("age", Domain::Number(2, 60)),
                ("size", Domain::Phrase),
            ],
            Kind::Town => &[
                ("region", Domain::Phrase),
                ("river", Domain::Link(Kind::River)),
                ("founded", Domain::Number(900, 1750)),
                ("product", Domain::Phrase),
                ("landmark", Domain::Phrase),
                ("bridges", Domain::Number(2, 12)),
                ("market", Domain::Phrase),
                ("arms", Domain::Link(Kind::Animal)),
            ],
            Kind::Person => &[
                ("trade", Domain::Phrase),
                ("town", Domain::Link(Kind::Town)),
                ("born", Domain::Number(1760, 1899)),
                ("age", Domain::Number(41, 97)),
                ("died", Domain::Sum("born", "age")),
                ("work", Domain::Unique),
                ("love", Domain::Phrase),
            ],
        }
    }

    /// The attributes that an article can state after its first sentence.
    pub fn attributes(self) -> &'static [&'static str] {
        match self {
            Kind::River => &["mouth", "length", "colour"],
            Kind::Plant => &["month", "soil", "use", "height"],
            Kind::Animal => &["food", "habitat", "active", "young", "age", "size"],
            Kind::Town => &["river", "founded", "product", "landmark", "bridges", "market", "arms"],
            Kind::Person => &["town", "died", "work", "love"],
        }
    }

    /// The attributes that a question can ask for.
    pub fn asked(self) -> &'static [&'static str] {
        match self {
            Kind::River => &["source", "mouth", "length", "colour"],
            Kind::Plant => &["flower", "month", "soil", "use", "height"],
            Kind::Animal => &["colour", "food", "habitat", "active", "young", "age", "size"],
            Kind::Town => &["region", "river", "founded", "product", "landmark", "bridges", "market", "arms"],
            Kind::Person => &["trade", "town", "born", "age", "died", "work", "love"],
        }
    }
}
