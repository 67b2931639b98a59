"""Checks an exported Hugging Face folder with transformers itself.

    openelm export shared/reference/corenet-run/checkpoint_last.pt --tokenizer shared/tokenizers/spm-2k --format hf --out out/hf
    python scripts/check-hf.py out/hf --openelm target/release/openelm [--logits shared/reference/forward_final.safetensors]

Needs torch, transformers and safetensors (`pip install torch transformers safetensors`). Compares greedy text with the program's,
generate() with and without a cache, batches padded on the left, a cache of fixed length, and the logits with CoreNet's (`--logits`:
a file with `samples` and `logits`) to within 1e-4.
"""

import argparse
import json
import subprocess
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = ["Once upon a time", "def main(arguments):\n    return", "The river"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--openelm", help="the program, to compare greedy ids with")
    parser.add_argument("--logits", help="safetensors file with samples [n, seq] and logits [n, seq, vocabulary]")
    parser.add_argument("--tokens", type=int, default=24)
    arguments = parser.parse_args()

    model = AutoModelForCausalLM.from_pretrained(arguments.folder, trust_remote_code=True, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.folder, trust_remote_code=True)
    options = {"max_new_tokens": arguments.tokens, "min_new_tokens": arguments.tokens, "do_sample": False, "pad_token_id": 0}
    failures = []

    def check(what, holds):
        print(f"{'ok   ' if holds else 'WRONG'} {what}")
        if not holds:
            failures.append(what)

    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    alone = []
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt")
        cached = model.generate(**inputs, **options)[0]
        check(f"{prompt!r}: the cache changes nothing", torch.equal(cached, model.generate(**inputs, **options, use_cache=False)[0]))
        fixed = model.generate(**inputs, **options, cache_implementation="static", disable_compile=True)[0]
        check(f"{prompt!r}: nor does one of fixed length", torch.equal(cached, fixed))
        alone.append(cached[inputs["input_ids"].shape[1] :].tolist())
        if arguments.openelm:
            call = [arguments.openelm, "generate", arguments.folder, "--prompt", prompt, "--max-new-tokens", str(arguments.tokens)]
            answer = json.loads(subprocess.run([*call, "--ignore-eos", "--json"], check=True, capture_output=True, text=True).stdout)
            check(f"{prompt!r}: the same prompt ids as the program's", answer["prompt_ids"] == inputs["input_ids"][0].tolist())
            options_alike = alone[-1] == answer["ids"]
            check(f"{prompt!r}: the same {arguments.tokens} greedy ids", options_alike)

    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.unk_token
    batch = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    together = model.generate(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **options)
    check("a padded batch gives what each prompt gives alone", [row[-arguments.tokens :].tolist() for row in together] == alone)

    with torch.no_grad():
        labels = tokenizer(PROMPTS[0], return_tensors="pt")["input_ids"]
        check("a loss for labels", torch.isfinite(model(input_ids=labels, labels=labels).loss).item())
    if arguments.logits:
        from safetensors.torch import load_file

        reference = load_file(arguments.logits)
        with torch.no_grad():
            logits = model(input_ids=reference["samples"].long()).logits
        rows = min(logits.shape[-1], reference["logits"].shape[-1])
        apart = (logits[..., :rows] - reference["logits"][..., :rows]).abs().max().item()
        check(f"logits within 1e-4 of the reference ({apart:.1e})", apart < 1e-4)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
