"""One shard of JSON lines of 2 GB, with a single document of 500 MB in its middle, made of other shards' documents.

    python scripts/bench/large_shard.py ../shared/corpora/redpajama out/large.jsonl
    openelm bench data CONFIG --seconds 75 --no-stages --json     # a configuration whose one corpus is that file
"""

import argparse
import json
import pathlib
import random

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", type=pathlib.Path, help="folder with .jsonl shards whose rows have `text`")
parser.add_argument("out", type=pathlib.Path)
parser.add_argument("--bytes", type=int, default=2_000_000_000)
parser.add_argument("--document", type=int, default=500_000_000)
args = parser.parse_args()

texts = [json.loads(line)["text"] for path in sorted(args.folder.rglob("*.jsonl")) for line in path.open(encoding="utf-8")]
choose = random.Random(1).choice
written, long_one_is_out = 0, False
with args.out.open("w", encoding="utf-8") as out:
    while written < args.bytes:
        text = f"{choose(texts)} {written}"
        if written > args.bytes // 2 and not long_one_is_out:
            parts, length = [], 0
            while length < args.document:
                parts.append(choose(texts))
                length += len(parts[-1])
            text, long_one_is_out = "\n\n".join(parts), True
        written += out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
