//! Shards in all four layouts, made without a compressor: gzip and zstd with stored blocks, parquet with one plain page.

/// A fixed stream of numbers (SplitMix64), so that a test reads the same texts each time.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

const WORDS: [&str; 24] = [
    "the", "a", "small", "old", "red", "river", "garden", "stone", "bird", "child", "found", "lost", "under", "over", "near", "bright",
    "quiet", "ran", "sang", "slept", "and", "then", "12", "305",
];

/// `count` texts of 20 to 80 words; other seeds give other texts.
pub fn texts(seed: u64, count: usize) -> Vec<String> {
    let mut numbers = Numbers(seed);
    let mut text = || {
        let length = 20 + numbers.below(60);
        let words: Vec<&str> = (0..length).map(|_| WORDS[numbers.below(WORDS.len() as u64) as usize]).collect();
        words.join(" ") + "."
    };
    (0..count).map(|_| text()).collect()
}

/// One object a line, the text under `text`.
pub fn json_lines(texts: &[String]) -> Vec<u8> {
    let line = |(id, text): (usize, &String)| serde_json::json!({"id": id, "text": text}).to_string() + "\n";
    texts.iter().enumerate().map(line).collect::<String>().into_bytes()
}

/// Bytes of a stored block: small, so that a short shard has several.
const BLOCK: usize = 1000;

/// A gzip member of stored blocks.
pub fn gzip(content: &[u8]) -> Vec<u8> {
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let blocks: Vec<&[u8]> = content.chunks(BLOCK).collect();
    for (index, block) in blocks.iter().enumerate() {
        file.push(u8::from(index + 1 == blocks.len()));
        let length = block.len() as u16;
        file.extend(length.to_le_bytes());
        file.extend((!length).to_le_bytes());
        file.extend(*block);
    }
    file.extend(crc32(content).to_le_bytes());
    file.extend((content.len() as u32).to_le_bytes());
    file
}

fn crc32(content: &[u8]) -> u32 {
    let step = |state: u32, byte: &u8| (0..8).fold(state ^ u32::from(*byte), |state, _| (state >> 1) ^ (0xedb8_8320 * (state & 1)));
    !content.iter().fold(u32::MAX, step)
}

/// A zstd frame of raw blocks.
pub fn zstd(content: &[u8]) -> Vec<u8> {
    // One segment, and four bytes of content size.
    let mut file = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    file.extend((content.len() as u32).to_le_bytes());
    let blocks: Vec<&[u8]> = content.chunks(BLOCK).collect();
    for (index, block) in blocks.iter().enumerate() {
        let last = u32::from(index + 1 == blocks.len());
        file.extend(&((block.len() as u32) << 3 | last).to_le_bytes()[..3]);
        file.extend(*block);
    }
    file
}

/// A parquet file: one row group, one required column of texts, one plain page.
pub fn parquet(column: &str, texts: &[String]) -> Vec<u8> {
    let mut page = Vec::new();
    for text in texts {
        page.extend((text.len() as u32).to_le_bytes());
        page.extend(text.as_bytes());
    }
    let (rows, page_size) = (texts.len() as i64, page.len() as i64);
    let mut header = Compact::default();
    // Data page, its size twice (there is no compression), values, plain encoding, levels as runs.
    header.ints(&[(1, 0), (2, page_size), (3, page_size)]);
    header.structure(5, |page| page.ints(&[(1, rows), (2, 0), (3, 3), (4, 3)]));
    let header = header.end();
    let chunk_size = header.len() as i64 + page_size;
    let mut footer = Compact::default();
    footer.ints(&[(1, 1)]);
    footer.list(2, 2, STRUCT);
    footer.element(|root| {
        root.text(4, "schema");
        root.ints(&[(5, 1)]);
    });
    footer.element(|leaf| {
        leaf.ints(&[(1, 6), (3, 0)]);
        leaf.text(4, column);
        leaf.ints(&[(6, 0)]);
    });
    footer.long(3, rows);
    footer.list(4, 1, STRUCT);
    footer.element(|group| {
        group.list(1, 1, STRUCT);
        group.element(|chunk| {
            chunk.long(2, 4);
            chunk.structure(3, |data| {
                data.ints(&[(1, 6)]);
                data.list(2, 1, I32);
                data.number(0);
                data.list(3, 1, TEXT);
                data.bare_text(column);
                data.ints(&[(4, 0)]);
                for (field, value) in [(5, rows), (6, chunk_size), (7, chunk_size), (9, 4)] {
                    data.long(field, value);
                }
            });
        });
        group.long(2, chunk_size);
        group.long(3, rows);
    });
    let footer = footer.end();
    let length = (footer.len() as u32).to_le_bytes();
    [b"PAR1", header.as_slice(), &page, &footer, &length, b"PAR1"].concat()
}

const I32: u8 = 5;
const I64: u8 = 6;
const TEXT: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

/// Thrift's compact protocol, as far as a parquet footer needs it.
#[derive(Default)]
struct Compact {
    bytes: Vec<u8>,
    last: u8,
}

impl Compact {
    fn field(&mut self, id: u8, kind: u8) {
        self.bytes.push((id - self.last) << 4 | kind);
        self.last = id;
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn number(&mut self, value: i64) {
        self.varint(((value << 1) ^ (value >> 63)) as u64);
    }

    fn ints(&mut self, fields: &[(u8, i64)]) {
        for (id, value) in fields {
            self.field(*id, I32);
            self.number(*value);
        }
    }

    fn long(&mut self, id: u8, value: i64) {
        self.field(id, I64);
        self.number(value);
    }

    fn text(&mut self, id: u8, text: &str) {
        self.field(id, TEXT);
        self.bare_text(text);
    }

    fn bare_text(&mut self, text: &str) {
        self.varint(text.len() as u64);
        self.bytes.extend(text.as_bytes());
    }

    fn list(&mut self, id: u8, length: u8, kind: u8) {
        self.field(id, LIST);
        self.bytes.push(length << 4 | kind);
    }

    fn structure(&mut self, id: u8, fill: impl FnOnce(&mut Self)) {
        self.field(id, STRUCT);
        self.element(fill);
    }

    /// A struct in a list; `structure` writes a field's.
    fn element(&mut self, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.bytes.extend(inner.end());
    }

    fn end(mut self) -> Vec<u8> {
        self.bytes.push(0);
        self.bytes
    }
}
