"""Checks adapters with PyPI's peft: it loads ours, we load its, and both answer alike.

    openelm export shared/reference/hf-5m --format hf --out out/base
    openelm finetune configs/finetune/quickstart-lora.yaml --init out/base --out out/run
    python scripts/check-peft.py out/base out/run --openelm target/release/openelm

Needs torch, transformers, peft and safetensors (`pip install torch transformers peft safetensors`). The base must be a Hugging Face
folder that the program exported. For the given adapter, and for a LoRA, an rsLoRA and a DoRA that peft makes itself, the logits of
peft's model and of the folder that `openelm adapter fuse` writes must agree to within 1e-4, and greedy ids with those of
`openelm generate --adapter`.
"""

import argparse
import glob
import json
import os
import subprocess
import sys
import tempfile

import peft
import torch
import transformers
from transformers import AutoModelForCausalLM

PROMPT = "Where does the river end?"
TARGETS = ["qkv_proj", "out_proj", "proj_1", "proj_2"]


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32).eval()


def own_adapter(base, folder, **options):
    """An adapter of peft's with parameters that are not those of its beginning."""
    config = peft.LoraConfig(r=4, lora_alpha=10, bias="none", **options)
    model = peft.get_peft_model(load(base), config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder, safe_serialization=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("adapter", help="a folder of peft's, or a run of the program that trains an adapter")
    parser.add_argument("--openelm", default="target/release/openelm")
    parser.add_argument("--tokens", type=int, default=24)
    arguments = parser.parse_args()
    failures = []

    def check(what, holds):
        print(f"{'ok   ' if holds else 'WRONG'} {what}")
        if not holds:
            failures.append(what)

    def program(*call):
        return subprocess.run([arguments.openelm, *call], check=True, capture_output=True, text=True).stdout

    print(f"peft {peft.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")
    checkpoints = sorted(glob.glob(os.path.join(arguments.adapter, "checkpoints", "step-*")))
    adapters = [("the given adapter", checkpoints[-1] if checkpoints else arguments.adapter)]
    with tempfile.TemporaryDirectory() as folder:
        for name, options in [
            ("peft's LoRA", {"target_modules": TARGETS}),
            ("peft's rsLoRA", {"target_modules": r".*layers\.[02]\.(attn|ffn)\..*proj.*", "use_rslora": True, "rank_pattern": {"proj_2": 7}}),
            ("peft's DoRA", {"target_modules": TARGETS, "use_dora": True}),
            ("peft's LoRA of the embedding", {"target_modules": ["token_embeddings", "qkv_proj"], "alpha_pattern": {"qkv_proj": 3}}),
        ]:
            place = os.path.join(folder, name.replace(" ", "-").replace("'", ""))
            own_adapter(arguments.base, place, **options)
            adapters.append((name, place))
        for number, (name, place) in enumerate(adapters):
            model = peft.PeftModel.from_pretrained(load(arguments.base), place).eval()
            call = ["generate", arguments.base, "--adapter", place, "--prompt", PROMPT, "--max-new-tokens", str(arguments.tokens)]
            answer = json.loads(program(*call, "--ignore-eos", "--json"))
            ids = torch.tensor([answer["prompt_ids"] + answer["ids"]])
            with torch.no_grad():
                logits = model(input_ids=ids).logits
                with model.disable_adapter():
                    base_logits = model(input_ids=ids).logits
            check(f"{name}: it changes the logits", (logits - base_logits).abs().max().item() > 1e-3)
            begin = len(answer["prompt_ids"]) - 1
            check(f"{name}: the same {arguments.tokens} greedy ids", logits[0, begin:-1].argmax(-1).tolist() == answer["ids"])
            fused = os.path.join(folder, f"fused-{number}")
            program("adapter", "fuse", arguments.base, place, "--out", fused)
            with torch.no_grad():
                difference = (load(fused)(input_ids=ids).logits - logits).abs().max().item()
            check(f"{name}: logits of the fused folder differ by {difference:.1e}", difference < 1e-4)
    sys.exit(f"{len(failures)} checks failed" if failures else 0)


if __name__ == "__main__":
    main()
