//! Small sound files for every fuzz target, made by the formats' own writers: `seeds FOLDER` fills `FOLDER/TARGET/`.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, BinaryArray, Float64Array, Int64Array, RecordBatch, StringArray};
use openelm_formats::{
    DType, FormatError, GgufArray, GgufValue, GgufWriter, PickleValue, SafetensorsWriter, StoredTensor, TensorInfo, encode_f32, write_torch,
};
use openelm_tokenizer::OPENELM_INSTRUCT;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let folder = std::env::args().nth(1).ok_or("usage: seeds FOLDER")?;
    let folder = Path::new(&folder);
    let of = |target: &str| -> Result<std::path::PathBuf> {
        let folder = folder.join(target);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    };
    gguf(&of("gguf")?)?;
    safetensors(&of("safetensors")?)?;
    fs::write(
        of("safetensors_index")?.join("both"),
        br#"{"metadata":{"total_size":16},"weight_map":{"a":"s1.safetensors","b":"s2.safetensors"}}"#,
    )?;
    torch(&of("torch_archive")?, &of("torch_pickle")?)?;
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/openelm-tokenizer/tests/fixtures");
    for entry in fs::read_dir(fixtures.join("models"))? {
        let entry = entry?;
        fs::copy(entry.path(), of("sentencepiece")?.join(entry.file_name()))?;
    }
    fs::copy(fixtures.join("trained/tokenizer.model"), of("sentencepiece")?.join("trained"))?;
    fs::copy(fixtures.join("trained/tokenizer.json"), of("tokenizer_json")?.join("trained"))?;
    tokenizer_json(&of("tokenizer_json")?)?;
    fs::write(of("chat_template")?.join("openelm"), OPENELM_INSTRUCT)?;
    fs::write(of("chat_template")?.join("loop"), CHAT)?;
    for (number, pattern) in PATTERNS.iter().enumerate() {
        fs::write(of("adapter_pattern")?.join(number.to_string()), pattern)?;
    }
    lines(&of("corpus_lines")?)?;
    parquet(&of("corpus_parquet")?)
}

const CHAT: &str = "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + message.content.strip() }}\
{% elif loop.first and message.role == 'system' %}{{ message['content'] | tojson }}{% else %}{{ raise_exception('role ' ~ message.role) }}\
{% endif %}{% endfor %}{% set ns = namespace(n=0) %}{% macro m(x) %}{{ x * 2 }}{% endmacro %}{{ m('ab') }}{{ strftime_now('%Y') }}\
{% for i in range(3) %}{{ i }}{% endfor %}{{ messages[1:] | length }}{{ 'a,b'.split(',') | join('-') }}{{ eos_token }}";

const PATTERNS: [&str; 6] = [
    ".*\\.(q|k)_proj",
    "transformer\\.layers\\.[0-9]{1,2}\\.attn\\.(qkv|out)_proj",
    "(a*)*b\0aaaaaaaaaaaaaaaaaaaa",
    "^(?:x|[^a-f\\d]+?)$\0xyz",
    "\\w+\\.\\S{2,}",
    "abc\0abc",
];

fn gguf(folder: &Path) -> Result<()> {
    let texts = |texts: &[&str]| GgufValue::Array(GgufArray::String(texts.iter().map(|text| (*text).to_owned()).collect()));
    let bytes: Vec<String> = (0..256).map(|byte| format!("<0x{byte:02X}>")).collect();
    let mut pieces = vec!["<unk>", "<s>", "</s>"];
    pieces.extend(bytes.iter().map(String::as_str));
    pieces.extend(["\u{2581}t", "he", "\u{2581}the", "\u{2581}", "t", "h", "e"]);
    let scores = (0..pieces.len()).map(|id| -(id as f32)).collect();
    let kinds = (0..pieces.len()).map(|id| [2, 3, 3].get(id).copied().unwrap_or(if id < 259 { 6 } else { 1 })).collect();
    let tokenizer = [
        ("general.architecture", GgufValue::String("openelm".into())),
        ("tokenizer.ggml.model", GgufValue::String("llama".into())),
        ("tokenizer.ggml.tokens", texts(&pieces)),
        ("tokenizer.ggml.scores", GgufValue::Array(GgufArray::F32(scores))),
        ("tokenizer.ggml.token_type", GgufValue::Array(GgufArray::I32(kinds))),
        ("tokenizer.ggml.bos_token_id", GgufValue::U32(1)),
        ("tokenizer.ggml.add_space_prefix", GgufValue::Bool(true)),
    ];
    let values = [
        ("general.alignment", GgufValue::U32(64)),
        ("u8", GgufValue::U8(1)),
        ("i16", GgufValue::I16(-1)),
        ("u64", GgufValue::U64(1 << 40)),
        ("f64", GgufValue::F64(0.5)),
        ("nested", GgufValue::Array(GgufArray::Array(vec![GgufArray::Bool(vec![true]), GgufArray::I64(vec![-1, 2])]))),
        ("strings", texts(&["", "a"])),
    ];
    for (name, metadata) in [("tokenizer", &tokenizer[..]), ("values", &values[..])] {
        let metadata: Vec<(String, GgufValue)> = metadata.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let types = [DType::F32, DType::F16, DType::BF16, DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1, DType::Q8_0];
        let mut infos: Vec<_> = types.into_iter().map(|dtype| TensorInfo::new(format!("t.{dtype}"), dtype, [1, 32])).collect();
        infos.extend([DType::Q4_K, DType::Q5_K, DType::Q6_K].map(|dtype| TensorInfo::new(format!("k.{dtype}"), dtype, [256])));
        infos.push(TensorInfo::new("scalar", DType::F32, []));
        let mut writer = GgufWriter::create(&folder.join(name), &metadata, &infos)?;
        for info in &infos {
            let values: Vec<f32> = (0..info.count()).map(|at| (at as f32).sin()).collect();
            writer.write(&info.name, &encode_f32(&values, info.dtype)?)?;
        }
        writer.finish()?;
    }
    Ok(())
}

fn safetensors(folder: &Path) -> Result<()> {
    let mut types = DType::PLAIN;
    types.sort_by_key(|dtype| std::cmp::Reverse(dtype.size()));
    let infos: Vec<_> = types.into_iter().map(|dtype| TensorInfo::new(format!("t.{dtype}"), dtype, [2, 1])).collect();
    let mut writer = SafetensorsWriter::create(&folder.join("plain"), &infos, &BTreeMap::from([("format".to_owned(), "pt".to_owned())]))?;
    for info in &infos {
        writer.write(&info.name, &vec![1; info.byte_len()])?;
    }
    writer.finish()?;
    SafetensorsWriter::create(&folder.join("empty"), &[], &BTreeMap::new())?.finish()?;
    Ok(())
}

/// Archives for one target, and the pickles in them, which stand there uncompressed, for the other.
fn torch(archives: &Path, pickles: &Path) -> Result<()> {
    let text = |text: &str| PickleValue::Str(text.into());
    let tensor = |storage: &str, dtype, shape: &[usize]| StoredTensor::contiguous(storage, dtype, shape);
    let column = StoredTensor { shape: vec![4], stride: vec![3], offset: 1, ..tensor("0", DType::F32, &[4, 3]) };
    let state = |tensors: Vec<(&str, StoredTensor)>| {
        PickleValue::OrderedDict(tensors.into_iter().map(|(name, tensor)| (text(name), PickleValue::Tensor(Box::new(tensor)))).collect())
    };
    let weights = state(vec![("whole", tensor("0", DType::F32, &[4, 3])), ("column", column), ("b", tensor("1", DType::BF16, &[4]))]);
    let training = PickleValue::Dict(vec![
        (text("model_state_dict"), weights.clone()),
        (text("epoch"), PickleValue::Int(-70_000)),
        (PickleValue::Int(3), PickleValue::List(vec![PickleValue::None, PickleValue::Bool(true), PickleValue::Float(0.5)])),
        (text("t"), PickleValue::Tuple(vec![PickleValue::Bytes(b"\x00\xff"[..].into()), text("\u{e9}"), PickleValue::Tuple(vec![])])),
    ]);
    for (name, root) in [("weights", weights), ("training", training)] {
        let path = archives.join(name);
        write_torch::<FormatError>(&path, &root, |tensor| Ok(vec![1; tensor.storage_len * tensor.dtype.size()]))?;
        let mut archive = zip::ZipArchive::new(fs::File::open(&path)?)?;
        let mut pickle = archive.by_name(&format!("{name}/data.pkl"))?;
        std::io::copy(&mut pickle, &mut fs::File::create(pickles.join(name))?)?;
    }
    // As PyTorch never writes it, but as others may: compressed.
    let mut zip = zip::ZipWriter::new(fs::File::create(archives.join("deflated"))?);
    let options = zip::write::SimpleFileOptions::default();
    zip.start_file("a/data.pkl", options)?;
    zip.write_all(&fs::read(pickles.join("weights"))?)?;
    for (key, len) in [("0", 48), ("1", 8)] {
        zip.start_file(format!("a/data/{key}"), options)?;
        zip.write_all(&vec![1; len])?;
    }
    zip.finish()?;
    Ok(())
}

fn tokenizer_json(folder: &Path) -> Result<()> {
    let files = [
        ("words", r#"{"model":{"type":"WordLevel","vocab":{"a":0,"[UNK]":1},"unk_token":"[UNK]"},"pre_tokenizer":{"type":"Whitespace"}}"#),
        (
            "bytes",
            r#"{"added_tokens":[{"id":3,"content":"<|endoftext|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}"#,
        ),
        (
            "unigram",
            r#"{"model":{"type":"Unigram","unk_id":0,"vocab":[["<unk>",0.0],["a",-1.0],["ab",-1.5]],"byte_fallback":false},"pre_tokenizer":{"type":"Metaspace","replacement":"\u2581","prepend_scheme":"always","split":true},"decoder":{"type":"Metaspace","replacement":"\u2581","prepend_scheme":"always","split":true}}"#,
        ),
        (
            "pieces",
            r###"{"model":{"type":"WordPiece","vocab":{"[UNK]":0,"a":1,"##b":2},"unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100},"normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"BertPreTokenizer"},{"type":"Split","pattern":{"Regex":"\\d+|a(?=b)"},"behavior":"Isolated","invert":false}]},"decoder":{"type":"WordPiece","prefix":"##","cleanup":true}}"###,
        ),
    ];
    for (name, json) in files {
        fs::write(folder.join(name), json)?;
    }
    Ok(())
}

const LINES: &str = "{\"text\": \"a \\\"quoted\\\" \\u00e9\\ud83d\\ude00 text\\n\", \"meta\": {\"text\": [1, \"}\"]}}\n\n  {\"id\": -1.5e3, \"text\": \"\"}\r\n\
{\"te\\u0078t\": \"b\", \"x\": [null, true, {}]}";

fn lines(folder: &Path) -> Result<()> {
    let mut gzip = flate2::write::GzEncoder::new(vec![1], flate2::Compression::fast());
    gzip.write_all(LINES.as_bytes())?;
    let zstd = zstd::encode_all(LINES.as_bytes(), 1)?;
    fs::write(folder.join("plain"), [b"\0", LINES.as_bytes()].concat())?;
    fs::write(folder.join("gzip"), gzip.finish()?)?;
    fs::write(folder.join("zstd"), [b"\x02", zstd.as_slice()].concat())?;
    Ok(())
}

fn parquet(folder: &Path) -> Result<()> {
    let texts = ["one", "\u{e9}\u{4e2d}", "", "one", "four"];
    let mut list = ListBuilder::new(StringBuilder::new());
    for text in texts {
        list.append_value([Some(text), None]);
    }
    let text: ArrayRef = Arc::new(StringArray::from(texts.to_vec()));
    let id: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4, 5]));
    let score: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.5), None, None, Some(1.0), None]));
    let turns: ArrayRef = Arc::new(list.finish());
    let bytes: ArrayRef = Arc::new(BinaryArray::from(texts.map(str::as_bytes).to_vec()));
    let plain = RecordBatch::try_from_iter([("id", id), ("text", text.clone()), ("score", score)])?;
    let nested = RecordBatch::try_from_iter_with_nullable([("text", bytes, false), ("turns", turns, true)])?;
    let one = RecordBatch::try_from_iter([("text", text)])?;
    for (name, batch, compression, dictionary) in [
        ("plain", plain, Compression::UNCOMPRESSED, true),
        ("nested", nested, Compression::SNAPPY, false),
        ("zstd", one.clone(), Compression::ZSTD(ZstdLevel::default()), true),
        ("gzip", one, Compression::GZIP(Default::default()), false),
    ] {
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(3))
            .set_compression(compression)
            .set_dictionary_enabled(dictionary)
            .build();
        let mut writer = ArrowWriter::try_new(fs::File::create(folder.join(name))?, batch.schema(), Some(properties))?;
        writer.write(&batch)?;
        writer.close()?;
    }
    Ok(())
}
