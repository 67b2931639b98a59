#!/usr/bin/env python3
"""Reads a run's event files with the real TensorBoard and compares them with metrics.jsonl.

    pip install tensorboard
    scripts/check-tensorboard.py RUN_DIR
"""
import json
import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TAGS = {
    "train/loss": "loss",
    "train/ce_loss": "ce_loss",
    "train/z_loss": "z_loss",
    "train/grad_norm": "grad_norm",
    "train/learning_rate": "learning_rate",
    "train/tokens": "tokens",
    "validation/loss": "validation_loss",
    "validation/perplexity": "perplexity",
}

run = pathlib.Path(sys.argv[1])
events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
events.Reload()
records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
# Scores have the same name in both.
for record in records:
    TAGS.update({key: key for key in record if key.startswith("eval/")})
compared = 0
for tag, key in TAGS.items():
    if not any(key in record for record in records):
        continue
    # A resumed run writes the steps after its checkpoint again; the last value of a step holds.
    values = {event.step: event.value for event in events.Scalars(tag)}
    for record in records:
        if key in record:
            found, expected = values[record["step"]], record[key]
            assert abs(found - expected) <= 1e-6 * max(1.0, abs(expected)), (tag, record["step"], found, expected)
            compared += 1
assert compared, "nothing to compare"
print(f"{compared} values of {len(TAGS)} tags are equal")
