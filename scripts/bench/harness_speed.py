"""lm-evaluation-harness's side of the evaluation comparison: one JSON line with seconds, requests and scores.

    pip install torch==2.9.0 transformers lm_eval==0.4.2
    openelm export WEIGHTS --format hf --dtype f32 --out out/hf
    python scripts/bench/harness_speed.py out/hf --data ../shared/eval --tasks arc_easy,piqa --limit 50 --threads 2
    OPENELM_THREADS=2 openelm eval out/hf --data ../shared/eval --tasks arc_easy,piqa --limit 50 --max-length 1024 --out out/results

The harness's own task files score the same rows: only where their data comes from is replaced, by `--data`. The time is that of
`simple_evaluate` alone, without loading the model; `openelm` is best timed as a whole process, which counts its loading.
"""

import argparse
import json
import pathlib
import resource
import time

import evaluate
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

# At import the harness asks the hub for metrics that multiple choice does not use.
evaluate.load = lambda name, *rest, **named: None

import datasets  # noqa: E402
import lm_eval  # noqa: E402
from lm_eval.api.task import ConfigurableTask  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder")
parser.add_argument("--data", required=True, type=pathlib.Path)
parser.add_argument("--tasks", required=True)
parser.add_argument("--shots", type=int)
parser.add_argument("--limit", type=int)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--batch", type=int, default=8)
parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
parser.add_argument("--max-length", type=int, default=1024)
args = parser.parse_args()

torch.set_num_threads(args.threads)
model = AutoModelForCausalLM.from_pretrained(args.folder, trust_remote_code=True, dtype=getattr(torch, args.dtype)).eval()
tokenizer = AutoTokenizer.from_pretrained(args.folder, trust_remote_code=True)
tokenizer.pad_token = tokenizer.pad_token or tokenizer.unk_token
language_model = HFLM(
    pretrained=model, tokenizer=tokenizer, batch_size=args.batch, add_bos_token=True, max_length=args.max_length, backend="causal"
)


class LocalTask(ConfigurableTask):
    """A task of the harness whose rows come from `--data`: TASK_SPLIT.jsonl, else TASK.jsonl."""

    def download(self, dataset_kwargs=None):
        splits = {}
        for split in ("train", "validation", "test", "dev"):
            path = args.data / f"{self.config.task}_{split}.jsonl"
            path = path if path.exists() else args.data / f"{self.config.task}.jsonl"
            if path.exists():
                rows = [json.loads(line) for line in path.open(encoding="utf-8")]
                splits[split] = datasets.Dataset.from_list(rows)
        self.dataset = datasets.DatasetDict(splits)


manager = TaskManager(verbosity="ERROR")
tasks = {}
for name in args.tasks.split(","):
    configuration = manager._get_config(name)
    configuration = {key: value for key, value in configuration.items() if not key.startswith(("group", "task_alias"))}
    if args.shots is not None:
        configuration["num_fewshot"] = args.shots
    if name == "hellaswag":
        # The rows hold `query`, `choices` and `label` already; the harness's preparation would not find its columns.
        configuration["process_docs"] = None
    tasks[name] = LocalTask(config=configuration)

begin = time.perf_counter()
results = lm_eval.evaluate(language_model, tasks, limit=args.limit, bootstrap_iters=0, log_samples=True)
seconds = time.perf_counter() - begin
print(
    json.dumps(
        {
            "seconds": round(seconds, 2),
            "requests": sum(len(samples["resps"]) for task in results["samples"].values() for samples in task),
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "results": {name: {k: v for k, v in result.items() if k.startswith("acc")} for name, result in results["results"].items()},
        }
    )
)
