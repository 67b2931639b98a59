"""Checks an exported GGUF file with the `gguf` package of llama.cpp.

    openelm export shared/reference/hf-5m --format gguf --quantize q5_k_m --out out/5m.gguf
    python scripts/check-gguf.py out/5m.gguf shared/reference/hf-5m

Needs gguf and safetensors (`pip install gguf safetensors`). Every tensor must be readable, and near the original of the Hugging Face
folder; those of types that the package can quantise itself must be equal to its bytes.
"""

import argparse
import sys
from collections import Counter

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize, quantize
from safetensors.numpy import load_file

NAMES = {
    "token_embd": "token_embeddings",
    "output_norm": "norm",
    "attn_output": "attn.out_proj",
    "attn_qkv": "attn.qkv_proj",
    "attn_q_norm": "attn.q_norm",
    "attn_k_norm": "attn.k_norm",
    "ffn_down": "ffn.proj_2",
}
# Of the values' own size: what a type may lose.
BOUNDS = {"F32": 0, "F16": 1e-3, "BF16": 8e-3, "Q8_0": 0.01, "Q6_K": 0.03, "Q5_0": 0.06, "Q5_1": 0.06, "Q5_K": 0.06, "Q4_0": 0.13, "Q4_1": 0.11, "Q4_K": 0.11}


def original(weights, name):
    parts = name.removesuffix(".weight").split(".")
    layer, tail = (f"layers.{parts[1]}.", parts[2]) if parts[0] == "blk" else ("", parts[0])
    if tail in ("ffn_gate", "ffn_up"):
        gate, up = np.split(weights[f"transformer.{layer}ffn.proj_1.weight"], 2)
        return gate if tail == "ffn_gate" else up
    return weights[f"transformer.{layer}{NAMES.get(tail, tail)}.weight"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("folder", help="the Hugging Face folder that it was made from, with one model.safetensors")
    arguments = parser.parse_args()

    reader = GGUFReader(arguments.file)
    weights = load_file(f"{arguments.folder}/model.safetensors")
    types, equal, failures = Counter(), Counter(), []
    for tensor in reader.tensors:
        values = original(weights, tensor.name).astype(np.float32)
        kind = tensor.tensor_type.name
        types[kind] += 1
        read = dequantize(tensor.data, tensor.tensor_type).reshape(values.shape)
        error = np.linalg.norm(read - values) / np.linalg.norm(values)
        if not error <= BOUNDS[kind]:
            failures.append(f"{tensor.name} of {kind} is {error:.3f} off")
        try:
            same = np.array_equal(quantize(values, tensor.tensor_type).view(np.uint8).ravel(), tensor.data.view(np.uint8).ravel())
        except NotImplementedError:
            continue
        equal[kind] += same
        if not same:
            failures.append(f"{tensor.name} of {kind} differs from the package's bytes")
    print(f"{len(reader.fields)} keys; tensors {dict(types)}; equal to the package's own {dict(equal)}")
    print("\n".join(failures))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
