#!/usr/bin/env python3
"""Write what SentencePiece makes of texts: the values that openelm-tokenizer's tests compare with.

Needs: pip install sentencepiece tokenizers pyarrow zstandard protobuf
usage: sentencepiece_hashes.py SHARED_DIR FIXTURES_DIR
Writes into FIXTURES_DIR:
  shards.json    for both shared tokenizers and every shard of SHARED_DIR/corpora: documents, ids in all, and a SHA-256
                 of all ids (u32, little-endian) with 0xFFFFFFFF after each document
  edge.json      the same for texts that are likely to break an encoder, and texts decoded from odd ids, also for models/
  models/*.model small models with settings that the shared ones do not have, trained here on sentences made up here
FIXTURES_DIR/trained holds what openelm-tokenizer's own trainer wrote (its test train.rs makes it). Its two files must load here and
give the same ids in SentencePiece and in Hugging Face tokenizers; its ids go into edge.json too.
"""
import glob, gzip, hashlib, io, json, os, random, re, struct, sys

import pyarrow.parquet as pq
import sentencepiece as spm
import tokenizers
import zstandard

SHARED, FIXTURES = sys.argv[1], sys.argv[2]
TOKENIZERS = ("llama-spm", "spm-2k")


def documents(path):
    """The texts of a shard: its text or content column, or else every message's content."""
    if path.endswith(".parquet"):
        table = pq.read_table(path)
        yield from table["text" if "text" in table.column_names else "content"].to_pylist()
        return
    if path.endswith(".gz"):
        lines = gzip.open(path, "rt", encoding="utf-8", newline="\n")
    elif path.endswith(".zst"):
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(open(path, "rb"), read_across_frames=True), encoding="utf-8", newline="\n")
    else:
        lines = open(path, encoding="utf-8", newline="\n")
    for line in lines:
        row = json.loads(line)
        if "text" in row:
            yield row["text"]
        else:
            for key in ("messages", "chosen", "rejected"):
                for message in row.get(key, []):
                    yield message["content"]


def digest(lists):
    sha, count, total = hashlib.sha256(), 0, 0
    for ids in lists:
        sha.update(struct.pack(f"<{len(ids) + 1}I", *ids, 0xFFFFFFFF))
        count, total = count + 1, total + len(ids)
    return count, total, sha.hexdigest()


def shards():
    rows = []
    for name in TOKENIZERS:
        sp = spm.SentencePieceProcessor(model_file=f"{SHARED}/tokenizers/{name}/tokenizer.model")
        files = [f for f in glob.glob(f"{SHARED}/corpora/**/*", recursive=True) if re.search(r"\.(parquet|jsonl|gz|zst)$", f)]
        for file in sorted(files):
            count, total, sha = digest(sp.encode(text) for text in documents(file))
            rows.append({"tokenizer": name, "shard": os.path.relpath(file, f"{SHARED}/corpora"), "documents": count, "ids": total, "sha256": sha})
    return rows


SYLLABLES = "ba be ko lu mi na or pe qu ra sti the ing un der ve xa yo zu".split()


def sentences(seed, count):
    """Made-up sentences with spaces, digits, punctuation, accents and another script."""
    rng = random.Random(seed)
    words = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) for _ in range(400)]
    words += ["caf\u00e9", "na\u00efve", "\u043c\u0438\u0440", "\u0434\u043e\u043c", "\u4e2d\u6587", "don't", "x_y", "foo.bar", "12", "2024", "ab-ab"]
    weights = [1 / (i + 1) for i in range(len(words))]
    for _ in range(count):
        yield (" " * rng.choice([1, 1, 1, 2, 4])).join(rng.choices(words, weights, k=rng.randint(3, 14))) + rng.choice([".", "!", "?", ""])


# Full-width letters, a ligature, e and combining acute, a text that becomes nothing, white space of other kinds.
RULES = "".join(
    "%s\t%s\n" % (" ".join(f"{ord(c):X}" for c in a), " ".join(f"{ord(c):X}" for c in b))
    for a, b in [("\uff21", "A"), ("\uff22", "B"), ("\ufb01", "fi"), ("e\u0301", "\u00e9"), ("\u200b", ""), ("\u3000", " "), ("\t", " "), ("\n", " "), ("\u2026", ". .")]
)
MODELS = {
    "bpe-plain": {"model_type": "bpe", "byte_fallback": False, "normalization_rule_name": "identity", "remove_extra_whitespaces": False},
    "bpe-crossing": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "split_by_whitespace": False, "split_by_unicode_script": False, "remove_extra_whitespaces": False, "max_sentencepiece_length": 12},
    "bpe-symbols": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_tsv": "RULES", "user_defined_symbols": ["<sep>", "foo.", "ab-", "\u2581qu"], "control_symbols": ["<ctl>"], "pad_id": 3},
    "bpe-suffix": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_tsv": "RULES", "treat_whitespace_as_suffix": True},
    "bpe-unescaped": {"model_type": "bpe", "byte_fallback": False, "normalization_rule_name": "identity", "add_dummy_prefix": False, "remove_extra_whitespaces": True},
    "bpe-unused": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False},
    "unigram-rules": {"model_type": "unigram", "byte_fallback": False, "normalization_rule_tsv": "RULES", "user_defined_symbols": ["<sep>", "foo."]},
    "unigram-bytes": {"model_type": "unigram", "byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False},
}


def models():
    os.makedirs(f"{FIXTURES}/models", exist_ok=True)
    rules = f"{FIXTURES}/models/rules.tsv"
    open(rules, "w").write(RULES)
    for name, settings in MODELS.items():
        settings = dict(settings)
        if "normalization_rule_tsv" in settings:
            settings["normalization_rule_tsv"] = rules
        out = io.BytesIO()
        spm.SentencePieceTrainer.train(sentence_iterator=sentences(1, 2000), model_writer=out, vocab_size=520, hard_vocab_limit=False, num_threads=1, minloglevel=2, character_coverage=0.999, **settings)
        data = out.getvalue()
        if name == "bpe-unused":
            data = with_unused(data)
        if name == "bpe-unescaped":
            data = unescaped(data)
        open(f"{FIXTURES}/models/{name}.model", "wb").write(data)
    os.remove(rules)


def with_unused(data):
    """Every third merged piece may arise, but not be given out."""
    from sentencepiece import sentencepiece_model_pb2
    model = sentencepiece_model_pb2.ModelProto.FromString(data)
    for index, piece in enumerate(model.pieces):
        if piece.type == 1 and len(piece.piece) > 1 and index % 3 == 0:
            piece.type = 5
    return model.SerializeToString()


def unescaped(data):
    """Spaces stay spaces."""
    from sentencepiece import sentencepiece_model_pb2
    model = sentencepiece_model_pb2.ModelProto.FromString(data)
    model.normalizer_spec.escape_whitespaces = False
    for piece in model.pieces:
        piece.piece = piece.piece.replace("\u2581", " ")
    return model.SerializeToString()


def edge_texts():
    """Each text as runs: [text, times]."""
    fixed = [
        "", " ", "\u2581", "a", " a", "\u2581a", "a ", "a\u2581", " \u2581 \u2581", "\t", "\n", "\r\n", "\n\n\n", "\x00", "a\x00b", "\x01\x02\x1b\x7f", "\u0080\u009f",
        "<s>", "</s>", "<unk>", "<0x0A>", "<s> a </s>", "<sep>", "a<sep>b", "<sep> <sep>", "foo.bar", " foo.", "fo", "ab-ab-", "<ctl>", " qu", "qu", "the qu the",
        "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "e\u0301", "\u00e9", "a\u0300\u0301\u0302\u0303", "\u0301", "\u200b", "a\u200bb", "\ufeff", "\ufffd",
        "\ufffe\uffff", "\ud7ff\ue000", "\U0010ffff", "\u3000", "a\u3000 b", "\u00a0", "\u2028", "\u4e2d\u6587\u5b57", "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8", "\ud55c\uad6d\uc5b4",
        "\u0639\u0631\u0628\u064a", "\u05e2\u05d1\u05e8\u05d9\u05ea", "\u0e44\u0e17\u0e22", "\u0928\u092e\u0938\u094d\u0924\u0947", "\uff21\uff22\ufb01\u2026", "don't won't I'll", "x_y__z", "1234567890", "3.14159e-10",
        "C:\\Users\\x", "https://example.org/a?b=c&d=%20#e", "if (x == 1) {\n\treturn y;\n}\n", "    def f(self):\n        pass\n", "\"quoted\" 'text' `code`", "$$\\alpha_{i}^{2}$$", "=====----_____*****", "....!!!???", "ABC aBc Abc",
        "  two  spaces  ", "trailing   ", "\tx\ty", "\u2581\u2581\u2581x\u2581", " \t \n ",
    ]
    texts = [[[text, 1]] for text in fixed]
    texts += [[[" ", n]] for n in list(range(2, 70)) + [1000, 100_000]]
    texts += [[["x", 1], [" ", n], ["y", 1]] for n in range(1, 40)]
    texts += [[[unit, n]] for unit in ("a", "b", "ab", "aab", "=", "-", "_", ".", "\n", "\t", "0", "\u4e2d", "\U0001f600", "\u00e9", "e\u0301", "\x00", "the", " the", "ing", "\u2581", "\u043c") for n in (2, 3, 5, 7, 16, 17, 31, 33, 255, 5000, 50_000)]
    texts += [[["a" * p, 1], ["b", 1], ["a" * q, 1]] for p in range(0, 20, 3) for q in range(0, 20, 4)]
    rng = random.Random(7)
    alphabets = ["ab", "abc ", "aeiou nrst", " \u2581a", "01", "\n\t ab", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", "thein ", "\u043c\u0438\u0440\u0434\u043e\u043c ", "ab\u4e2d\U0001f600 \u0301", "".join(SYLLABLES) + "  .", "<sep>foo.ab- "]
    for alphabet in alphabets:
        for length in (3, 8, 20, 33, 34, 60, 200, 1500):
            for _ in range(2):
                texts.append([["".join(rng.choices(alphabet, k=length)), 1]])
    for length in (1, 2, 5, 30, 200):
        for _ in range(10):
            texts.append([["".join(random_char(rng) for _ in range(length)), 1]])
    for sentence in sentences(2, 40):
        texts.append([[sentence, 1]])
    texts.append([["".join(rng.choices(alphabets[6], k=1000)), 60]])
    return texts


def random_char(rng):
    while True:
        char = rng.choice([rng.randrange(0x80), rng.randrange(0x800), rng.randrange(0x10000), rng.randrange(0x110000)])
        if not 0xD800 <= char < 0xE000:
            return chr(char)


def edge():
    texts = edge_texts()
    out = {"texts": texts, "tokenizers": []}
    paths = [(name, f"{SHARED}/tokenizers/{name}/tokenizer.model") for name in TOKENIZERS]
    paths += [(name, f"{FIXTURES}/models/{name}.model") for name in MODELS]
    if os.path.exists(f"{FIXTURES}/trained/tokenizer.model"):
        paths.append(("trained", f"{FIXTURES}/trained/tokenizer.model"))
    for name, path in paths:
        sp = spm.SentencePieceProcessor(model_file=path)
        joined = ["".join(text * times for text, times in runs) for runs in texts]
        encoded = [sp.encode(text) for text in joined]
        if name == "trained":
            hf = tokenizers.Tokenizer.from_file(f"{FIXTURES}/trained/tokenizer.json")
            for text, ids in zip(joined, encoded):
                # Hugging Face tokenizers takes a control token's text for the token.
                if not re.search("<s>|</s>|<unk>", text):
                    assert hf.encode(text, add_special_tokens=False).ids == ids, text[:80]
        rng = random.Random(3)
        odd = [[rng.randrange(sp.vocab_size()) for _ in range(rng.randint(1, 8))] for _ in range(50)]
        odd += [[rng.choice([0, 1, 2, rng.randrange(3, min(259, sp.vocab_size())), rng.randrange(sp.vocab_size())]) for _ in range(rng.randint(2, 12))] for _ in range(50)]
        odd += [[sp.piece_to_id("\u2581"), sp.piece_to_id("\u2581"), 1, sp.piece_to_id("\u2581")], [1, 2, 1], [0, 0]]
        if sp.piece_to_id("<0xE4>") != sp.unk_id():
            byte = lambda text: [sp.piece_to_id(f"<0x{b:02X}>") for b in text]
            for raw in ("\u4e2d".encode(), "\U0001f600".encode()[:3], b"\xe4\xb8", b"\xe4\xb8\xad\x80A", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf", b" a", b"\xff\xfe", "\u00e9\u4e2d".encode() + b"\xe4"):
                odd += [byte(raw), byte(raw) + [sp.piece_to_id("\u2581a"), 1] + byte(raw), [1] + byte(raw[:1]) + [1] + byte(raw[1:])]
        out["tokenizers"].append({
            "tokenizer": name,
            "ids": [[len(ids), digest([ids])[2][:16]] for ids in encoded],
            "decoded": [[ids, sp.decode(ids)] for ids in odd],
            "round_trips": [hashlib.sha256(sp.decode(ids).encode()).hexdigest()[:16] for ids in encoded],
        })
    return out


def write(name, value):
    with open(f"{FIXTURES}/{name}", "w", encoding="utf-8") as file:
        # One entry a line keeps the file readable and its changes small.
        text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
        file.write(text.replace('},{', '},\n{').replace('"decoded":', '\n"decoded":').replace('"tokenizers":', '\n"tokenizers":\n') + "\n")


models()
write("edge.json", edge())
write("shards.json", shards())
