"""Checks an exported MLX folder with mlx-lm itself, on the CPU.

    openelm export shared/reference/hf-5m --format mlx --quantize 4bit --out out/mlx
    python scripts/check-mlx.py out/mlx --reference shared/reference/mlx/mlx.json --key 4bit_group64

Needs mlx-lm (`pip install "mlx[cpu]" mlx-lm`). Compares the last position's first logits and the mean negative log-likelihood of the
reference's tokens with what mlx-lm gave for its own conversion.
"""

import argparse
import json
import sys

import mlx.core as mx
from mlx_lm import load


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--reference", required=True, help="mlx.json")
    parser.add_argument("--key", default="float32", help="which of its conversions")
    parser.add_argument("--tolerance", type=float, default=2e-3, help="relative, of the log-likelihood; 0.002 is 0.2 %%")
    arguments = parser.parse_args()

    mx.set_default_device(mx.cpu)
    reference = json.load(open(arguments.reference, encoding="utf-8"))
    expected = reference[arguments.key]
    ids = reference["token_ids"]
    model, _ = load(arguments.folder)
    logits = model(mx.array([ids]))[0].astype(mx.float32)
    log_probabilities = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    nll = -sum(log_probabilities[place, following].item() for place, following in enumerate(ids[1:])) / (len(ids) - 1)
    first = [value.item() for value in logits[-1][: len(expected["last_logits_first_64"])]]
    apart = max(abs(a - b) for a, b in zip(first, expected["last_logits_first_64"]))
    known = expected["mean_negative_log_likelihood"]
    print(f"negative log-likelihood {nll:.6f}, reference {known:.6f}; logits at most {apart:.1e} apart")
    sys.exit(0 if abs(nll - known) <= arguments.tolerance * known else 1)


if __name__ == "__main__":
    main()
