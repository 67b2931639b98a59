"""Random weights of an OpenELM size as a Hugging Face folder, for measuring speed.

    python scripts/bench/random_weights.py shared/reference/layerwise.json OpenELM-270M TOKENIZER.model out/270m

Needs numpy and safetensors. The values are those of a fresh model: N(0, 1/fan_in); norms are 1. Stored as bf16.
"""

import argparse
import json
import pathlib
import shutil
import struct

import numpy as np

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("layerwise", type=pathlib.Path)
parser.add_argument("size")
parser.add_argument("tokenizer", type=pathlib.Path)
parser.add_argument("out", type=pathlib.Path)
args = parser.parse_args()

size = json.loads(args.layerwise.read_text())[args.size]
dim, head_dim = size["model_dim"], size["head_dim"]
queries, keys, ffn = size["num_query_heads"], size["num_kv_heads"], size["ffn_dims"]
layers, vocabulary = len(queries), 32000
rng = np.random.default_rng(0)


def matrix(rows, columns):
    values = rng.standard_normal((rows, columns), dtype=np.float32) / np.float32(columns**0.5)
    return (values.view(np.uint32) + 0x8000 >> 16).astype(np.uint16)


def ones(count):
    return np.full(count, 0x3F80, np.uint16)


tensors = {"transformer.token_embeddings.weight": matrix(vocabulary, dim)}
for i in range(layers):
    name = f"transformer.layers.{i}."
    tensors |= {
        name + "attn.qkv_proj.weight": matrix((queries[i] + 2 * keys[i]) * head_dim, dim),
        name + "attn.q_norm.weight": ones(head_dim),
        name + "attn.k_norm.weight": ones(head_dim),
        name + "attn.out_proj.weight": matrix(dim, queries[i] * head_dim),
        name + "attn_norm.weight": ones(dim),
        name + "ffn_norm.weight": ones(dim),
        name + "ffn.proj_1.weight": matrix(2 * ffn[i], dim),
        name + "ffn.proj_2.weight": matrix(dim, ffn[i]),
    }
tensors["transformer.norm.weight"] = ones(dim)

args.out.mkdir(parents=True, exist_ok=True)
header, offset = {}, 0
for name, values in tensors.items():
    header[name] = {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [offset, offset + values.nbytes]}
    offset += values.nbytes
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
with open(args.out / "model.safetensors", "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    for values in tensors.values():
        file.write(values.tobytes())
config = {
    "model_type": "openelm", "architectures": ["OpenELMForCausalLM"], "vocab_size": vocabulary, "max_context_length": 2048,
    "num_transformer_layers": layers, "model_dim": dim, "head_dim": head_dim, "num_gqa_groups": size["num_gqa_groups"],
    "num_query_heads": queries, "num_kv_heads": keys, "ffn_multipliers": size["ffn_multipliers"], "qkv_multipliers": [0.5, 1.0],
    "ffn_with_glu": True, "ffn_dim_divisor": size["ffn_dim_divisor"], "activation_fn_name": "swish", "normalization_layer_name": "rms_norm",
    "normalize_qk_projections": True, "share_input_output_layers": True, "rope_freq_constant": 10000, "rope_max_length": 4096,
    "initializer_range": 0.02, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16", "use_cache": True,
}  # fmt: skip
(args.out / "config.json").write_text(json.dumps(config, indent=1))
shutil.copy(args.tokenizer, args.out / "tokenizer.model")
