"""Holds GGUF files of every quantised type beside those that llama.cpp makes itself, and what both engines say of a text.

    python scripts/check-llama.py shared/reference/hf-5m shared/corpora/validation/validation-00000-00001.jsonl

Needs llama-cpp-python (`pip install llama-cpp-python==0.3.36 gguf`, which builds llama.cpp) and target/release/openelm. llama.cpp's quantiser
works on the f32 file that `openelm export` wrote; its files must equal `openelm export --quantize`'s to the byte (q8_0, for which the
converter's keys are followed, is compared by its tensors). Then the beginnings of the shard's documents are scored: the mean negative
log-likelihood of a token that llama.cpp computes from the file, and the one that `openelm eval --perplexity` computes, which may be 0.2 % apart.
"""

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import llama_cpp
import numpy as np
from gguf import GGUFReader

# llama.cpp's llama_ftype.
TYPES = {"q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q4_k_s": 14, "q4_k_m": 15, "q5_k_s": 16, "q5_k_m": 17, "q6_k": 18}
LARGEST_GAP = 2e-3


def export(openelm, folder, to, *options):
    command = [openelm, "export", folder, "--format", "gguf", "--name", "check", "--out", to, *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def quantise(source, to, kind):
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = TYPES[kind]
    if llama_cpp.llama_model_quantize(str(source).encode(), str(to).encode(), ctypes.byref(parameters)) != 0:
        sys.exit(f"error: llama.cpp does not quantise {source} to {kind}")


def tensor_bytes(path):
    return {tensor.name: tensor.data.tobytes() for tensor in GGUFReader(path).tensors}


def equal(ours, peers, kind):
    if kind == "q8_0":
        return tensor_bytes(ours) == tensor_bytes(peers)
    return ours.read_bytes() == peers.read_bytes()


def beginnings(shard, documents, characters):
    texts = [json.loads(line)["text"][:characters] for line in Path(shard).read_text().splitlines()[:documents]]
    if not texts:
        sys.exit(f"error: {shard} has no documents")
    return texts


def llama_loss(path, texts):
    model = llama_cpp.Llama(str(path), n_ctx=2048, n_batch=2048, n_threads=2, n_threads_batch=2, logits_all=True, verbose=False)
    context = int(model.metadata["openelm.context_length"])
    total, count = 0.0, 0
    for text in texts:
        ids = model.tokenize(text.encode(), add_bos=True)
        if len(ids) > context:
            sys.exit(f"error: a text of {len(ids)} tokens, and a context of {context}\nhint: give fewer --characters")
        model.reset()
        model.eval(ids)
        logits = np.asarray(model.scores[: len(ids) - 1], dtype=np.float64)
        largest = logits.max(axis=1)
        normal = largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))
        total += (normal - logits[np.arange(len(ids) - 1), ids[1:]]).sum()
        count += len(ids) - 1
    return total / count, count


def own_loss(openelm, path, shard, out):
    subprocess.run([openelm, "eval", path, "--perplexity", shard, "--out", out], check=True, stdout=subprocess.DEVNULL)
    return json.loads((out / "results.json").read_text())["results"]["text"]["loss,none"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a Hugging Face folder")
    parser.add_argument("shard", help="a .jsonl file whose lines have `text`")
    parser.add_argument("--types", default=",".join(TYPES))
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--characters", type=int, default=400, help="of each document; its tokens must fit the context")
    parser.add_argument("--openelm", default="target/release/openelm")
    arguments = parser.parse_args()

    failures = 0
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        texts = beginnings(arguments.shard, arguments.documents, arguments.characters)
        shard = work / "beginnings.jsonl"
        shard.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        export(arguments.openelm, arguments.folder, work / "f32.gguf", "--dtype", "f32")
        theirs, tokens = llama_loss(work / "f32.gguf", texts)
        own = own_loss(arguments.openelm, work / "f32.gguf", shard, work / "f32-results")
        print(f"f32: {tokens} tokens, loss {own:.5f}, llama.cpp {theirs:.5f}")
        for kind in arguments.types.split(","):
            ours, peers = work / f"{kind}.gguf", work / f"{kind}-peer.gguf"
            export(arguments.openelm, arguments.folder, ours, "--quantize", kind)
            quantise(work / "f32.gguf", peers, kind)
            same = equal(ours, peers, kind)
            theirs, tokens = llama_loss(peers, texts)
            own = own_loss(arguments.openelm, ours, shard, work / f"{kind}-results")
            close = abs(own / theirs - 1) <= LARGEST_GAP
            failures += not (same and close)
            print(f"{kind}: bytes {'equal' if same else 'DIFFER'}; {tokens} tokens, loss {own:.5f}, llama.cpp {theirs:.5f}{'' if close else ' APART'}")
            for path in (ours, peers):
                path.unlink()
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
