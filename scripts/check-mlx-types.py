"""Holds MLX folders of every number of bits beside those that mlx-lm converts itself, and what both engines say of a text.

    python scripts/check-mlx-types.py shared/reference/hf-5m shared/corpora/validation/validation-00000-00001.jsonl

Needs mlx-lm (`pip install "mlx[cpu]" mlx-lm`) and target/release/openelm. Every tensor of `openelm export --format mlx --quantize` must equal
mlx-lm's; so must its settings. Then the beginnings of the shard's documents are scored: the mean negative log-likelihood of a token that mlx-lm
computes from its own folder, and the one that `openelm eval --perplexity` computes from it, which may be 0.2 % apart. The last folder has
settings of their own for some modules, which only mlx-lm writes.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
from mlx_lm import convert, load

BITS = [2, 3, 4, 5, 6, 8]
LARGEST_GAP = 2e-3


def mixed(path, *_):
    if "token_embeddings" in path:
        return {"bits": 6, "group_size": 64}
    if "proj_2" in path:
        return {"bits": 5, "group_size": 32}
    if "layers.3." in path:
        return False
    return {"bits": 3, "group_size": 64} if "qkv_proj" in path else True


def mlx_folder(source, to, **options):
    with contextlib.redirect_stdout(io.StringIO()):
        convert(source, mlx_path=str(to), quantize=True, q_group_size=64, **options)
    return to


def same(ours, theirs):
    own, peer = (mx.load(str(folder / "model.safetensors")) for folder in (ours, theirs))
    settings = [json.loads((folder / "config.json").read_text())["quantization"] for folder in (ours, theirs)]
    return sorted(own) == sorted(peer) and settings[0] == settings[1] and all(mx.array_equal(own[name], peer[name]) for name in peer)


def mlx_loss(folder, texts):
    model, tokenizer = load(str(folder), tokenizer_config={"trust_remote_code": True})
    bos = json.loads((folder / "config.json").read_text())["bos_token_id"]
    total, count = 0.0, 0
    for text in texts:
        ids = [bos, *tokenizer.encode(text, add_special_tokens=False)]
        logits = model(mx.array([ids]))[0].astype(mx.float32)
        logits = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        total -= mx.take_along_axis(logits[:-1], mx.array(ids[1:])[:, None], axis=1).sum().item()
        count += len(ids) - 1
    return total / count, count


def own_loss(openelm, folder, shard, out):
    subprocess.run([openelm, "eval", folder, "--perplexity", shard, "--out", out], check=True, stdout=subprocess.DEVNULL)
    return json.loads((out / "results.json").read_text())["results"]["text"]["loss,none"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a Hugging Face folder")
    parser.add_argument("shard", help="a .jsonl file whose lines have `text`")
    parser.add_argument("--documents", type=int, default=50)
    parser.add_argument("--characters", type=int, default=400, help="of each document; its tokens must fit the context")
    parser.add_argument("--openelm", default="target/release/openelm")
    arguments = parser.parse_args()

    mx.set_default_device(mx.cpu)
    texts = [json.loads(line)["text"][: arguments.characters] for line in Path(arguments.shard).read_text().splitlines()[: arguments.documents]]
    failures = 0
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        shard = work / "beginnings.jsonl"
        shard.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        for bits in [*BITS, "mixed"]:
            options = {"quant_predicate": mixed} if bits == "mixed" else {"q_bits": bits}
            theirs = mlx_folder(arguments.folder, work / f"{bits}", **options)
            equal = True
            if bits != "mixed":
                ours = work / f"{bits}-ours"
                command = [arguments.openelm, "export", arguments.folder, "--format", "mlx", "--quantize", f"{bits}bit", "--out", ours]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                equal = same(ours, theirs)
            loss, tokens = mlx_loss(theirs, texts)
            own = own_loss(arguments.openelm, theirs, shard, work / f"{bits}-results")
            close = abs(own / loss - 1) <= LARGEST_GAP
            failures += not (equal and close)
            tensors = "" if bits == "mixed" else f"tensors {'equal' if equal else 'DIFFER'}; "
            print(f"{bits} bits: {tensors}{tokens} tokens, loss {own:.5f}, mlx-lm {loss:.5f}{'' if close else ' APART'}", flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
