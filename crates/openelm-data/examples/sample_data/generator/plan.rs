//! What is written: corpora, their shards, how many documents each shard has and of which genres.

use super::document::{Blend, Genre};

/// How a shard is packed and what stands beside its texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Snappy parquet: content, url, timestamp, dump, segment, image_urls. Decomposed: letters and their accents apart.
    RefinedWeb { decomposed: bool },
    /// Zstandard parquet: text.
    Pile,
    /// Zstandard JSON lines: text, meta.pile_set_name.
    PileOriginal,
    /// JSON lines: text, and a meta that differs by subset.
    RedPajama,
    /// Gzip JSON lines of this many gzip members: id, text, source, added, created, metadata.
    Dolma { source: &'static str, members: usize },
    /// JSON lines: text, meta with genre and bits.
    Validation,
}

/// One file.
#[derive(Debug)]
pub struct Shard {
    /// Below the output folder.
    pub path: &'static str,
    pub documents: u64,
    pub layout: Layout,
}

/// Shards that share a name, a stream of chance and a blend of genres.
#[derive(Debug)]
pub struct Corpus {
    pub name: &'static str,
    pub blend: Blend,
    pub shards: &'static [Shard],
}

/// The blend of the validation shard, which is about that of all training shards together.
pub const ALL_GENRES: Blend = &[
    (Genre::Story, 5),
    (Genre::Chapter, 2),
    (Genre::Article, 6),
    (Genre::Blog, 3),
    (Genre::Questions, 4),
    (Genre::Sums, 3),
    (Genre::Notes, 2),
    (Genre::Code, 4),
];

pub const VALIDATION: &str = "validation";

/// All corpora; the validation shard has a stream of its own and stands in no other corpus.
pub const CORPORA: &[Corpus] = &[
    Corpus {
        name: "refinedweb",
        blend: &[(Genre::Story, 5), (Genre::Blog, 5), (Genre::Article, 2), (Genre::Questions, 2), (Genre::Sums, 1)],
        shards: &[
            Shard {
                path: "refinedweb/refinedweb-00000-of-00002.parquet",
                documents: 420,
                layout: Layout::RefinedWeb { decomposed: false },
            },
            Shard { path: "refinedweb/refinedweb-00001-of-00002.parquet", documents: 420, layout: Layout::RefinedWeb { decomposed: true } },
        ],
    },
    Corpus {
        name: "pile",
        blend: &[
            (Genre::Story, 3),
            (Genre::Chapter, 1),
            (Genre::Article, 4),
            (Genre::Questions, 3),
            (Genre::Sums, 3),
            (Genre::Notes, 2),
            (Genre::Code, 4),
        ],
        shards: &[
            Shard { path: "pile/pile-00000-of-00002.parquet", documents: 560, layout: Layout::Pile },
            Shard { path: "pile/pile-00001-of-00002.parquet", documents: 560, layout: Layout::Pile },
        ],
    },
    Corpus {
        name: "pile-original",
        blend: ALL_GENRES,
        shards: &[Shard { path: "pile-original/00.jsonl.zst", documents: 560, layout: Layout::PileOriginal }],
    },
    Corpus {
        name: "redpajama/book",
        blend: &[(Genre::Chapter, 1)],
        shards: &[Shard { path: "redpajama/book/book-00000-00001.jsonl", documents: 64, layout: Layout::RedPajama }],
    },
    Corpus {
        name: "redpajama/stackexchange",
        blend: &[(Genre::Questions, 1)],
        shards: &[Shard { path: "redpajama/stackexchange/stackexchange-00000-00001.jsonl", documents: 160, layout: Layout::RedPajama }],
    },
    Corpus {
        name: "redpajama/wikipedia",
        blend: &[(Genre::Article, 1)],
        shards: &[Shard { path: "redpajama/wikipedia/wiki-00000-00001.jsonl", documents: 280, layout: Layout::RedPajama }],
    },
    Corpus {
        name: "redpajama/c4",
        blend: &[(Genre::Story, 3), (Genre::Blog, 3), (Genre::Sums, 2)],
        shards: &[Shard { path: "redpajama/c4/c4-00000-00001.jsonl", documents: 160, layout: Layout::RedPajama }],
    },
    Corpus {
        name: "redpajama/arxiv",
        blend: &[(Genre::Notes, 1)],
        shards: &[Shard { path: "redpajama/arxiv/arxiv-00000-00001.jsonl", documents: 80, layout: Layout::RedPajama }],
    },
    Corpus {
        name: "redpajama/github",
        blend: &[(Genre::Code, 1)],
        shards: &[Shard { path: "redpajama/github/github-00000-00001.jsonl", documents: 200, layout: Layout::RedPajama }],
    },
    Corpus {
        name: "dolma/wiki",
        blend: &[(Genre::Article, 1)],
        shards: &[Shard {
            path: "dolma/wiki/en_simple_wiki_v0-0000.json.gz",
            documents: 900,
            layout: Layout::Dolma { source: "wikipedia", members: 3 },
        }],
    },
    Corpus {
        name: "dolma/stack",
        blend: &[(Genre::Code, 1)],
        shards: &[Shard {
            path: "dolma/stack/stack-v4-train-0000.json.gz",
            documents: 560,
            layout: Layout::Dolma { source: "the-stack-dedup", members: 1 },
        }],
    },
    Corpus {
        name: "dolma/books",
        blend: &[(Genre::Chapter, 1)],
        shards: &[
            Shard { path: "dolma/books/books-0000.json.gz", documents: 120, layout: Layout::Dolma { source: "gutenberg", members: 1 } },
            Shard { path: "dolma/books/books-0001.json.gz", documents: 120, layout: Layout::Dolma { source: "gutenberg", members: 2 } },
        ],
    },
    Corpus {
        name: VALIDATION,
        blend: ALL_GENRES,
        shards: &[Shard { path: "validation/validation-00000-00001.jsonl", documents: 200, layout: Layout::Validation }],
    },
];
