//! The kinds of documents, and a document with what it cost.

use super::article;
use super::blog;
use super::code;
use super::derive;
use super::draw::{Draw, Halt};
use super::grammar::Grammar;
use super::notes;
use super::questions;
use super::scribe::Scribe;
use super::story;
use super::stream::Stream;
use super::sums;
use super::world::World;

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Genre {
    Story,
    Chapter,
    Article,
    Blog,
    Questions,
    Sums,
    Notes,
    Code,
}

impl Genre {
    pub fn name(self) -> &'static str {
        match self {
            Genre::Story => "story",
            Genre::Chapter => "chapter",
            Genre::Article => "article",
            Genre::Blog => "blog",
            Genre::Questions => "questions",
            Genre::Sums => "sums",
            Genre::Notes => "notes",
            Genre::Code => "code",
        }
    }

    fn write(self, s: &mut Scribe) -> Result<(), Halt> {
        match self {
            Genre::Story => story::story(s),
            Genre::Chapter => story::chapter(s),
            Genre::Article => article::article(s),
            Genre::Blog => blog::blog(s),
            Genre::Questions => questions::questions(s),
            Genre::Sums => sums::sums(s),
            Genre::Notes => notes::notes(s),
            Genre::Code => code::code(s),
        }
    }
}

/// How likely each genre is: a corpus's weights.
pub type Blend = &'static [(Genre, u32)];

/// A finished document.
#[derive(Debug)]
pub struct Document {
    pub genre: Genre,
    pub text: String,
    /// -log2 of its probability, the choice of the genre included.
    pub bits: f64,
}

/// The language as a whole: tables and facts.
#[derive(Debug)]
pub struct Language {
    pub grammar: Grammar,
    pub world: World,
}

impl Language {
    /// The language whose world this seed gives.
    pub fn new(seed: u64) -> Result<Self, Halt> {
        let grammar = Grammar::load()?;
        let world = World::draw(seed, &grammar)?;
        Ok(Self { grammar, world })
    }

    fn write(&self, draw: &mut Draw, blend: Blend) -> Result<Genre, Halt> {
        let weights: Vec<u32> = blend.iter().map(|(_, weight)| *weight).collect();
        let chosen = draw.pick(&weights)?;
        let genre = blend.get(chosen).map(|(genre, _)| *genre).ok_or_else(|| Halt::Fault("a genre beyond its table".into()))?;
        genre.write(&mut Scribe::new(draw, &self.grammar, &self.world))?;
        Ok(genre)
    }

    /// A document by chance.
    pub fn document(&self, stream: Stream, blend: Blend) -> Result<Document, Halt> {
        let mut draw = Draw::sample(stream);
        let genre = self.write(&mut draw, blend)?;
        Ok(Document { genre, text: draw.text().to_string(), bits: draw.bits() })
    }

    /// The bits of every way in which a text can come about, and how far the longest attempt got.
    pub fn derivations(&self, text: &str, blend: Blend) -> Result<(Vec<f64>, usize), Halt> {
        derive::derivations(&|draw| self.write(draw, blend).map(|_| ()), text)
    }
}
