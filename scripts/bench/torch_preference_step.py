#!/usr/bin/env python3
"""One step of preference tuning in PyTorch: what `openelm bench preference` is compared with.

The step is TRL 0.8.6's with precomputed reference log-probabilities: chosen and rejected rows of every pair in one batch, padded to the
longest; log-softmax of all logits, the answers' tokens gathered and summed; the loss of the two log-ratios; backward, clipping of the
global norm, AdamW. The model is OpenELM with PyTorch's fused parts (scaled_dot_product_attention, fused AdamW, bf16 autocast).

    python scripts/bench/torch_preference_step.py --model 270M --pairs 1 --prompt 256 --chosen 256 --rejected 256 --dtype bf16 --compile

Prints one JSON object; the seconds are the median of the steps after two that do not count. Needs torch.
"""
import argparse
import json
import resource
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

SIZES = {  # layers, model_dim, head_dim, ffn_dim_divisor
    "270M": (16, 1280, 64, 256),
    "450M": (20, 1536, 64, 256),
    "25M": (10, 512, 64, 256),
    "5M": (8, 256, 32, 64),
}
GROUPS = 4


def divisible(value, divisor):
    """The multiple of `divisor` nearest to `value`, at most a tenth below it."""
    near = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * value else near


def rms_norm(x, weight):
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype) * weight


def rotate(x, cos, sin):
    wide = x.float()
    low, high = wide.chunk(2, dim=-1)
    return (wide * cos + torch.cat([-high, low], dim=-1) * sin).to(x.dtype)


class Layer(nn.Module):
    def __init__(self, width, head_dim, divisor, depth):
        super().__init__()
        self.head_dim = head_dim
        self.queries = divisible(width * round(0.5 + 0.5 * depth, 2), head_dim * GROUPS) // head_dim
        self.keys = self.queries // GROUPS
        inner = divisible(width * round(0.5 + 3.5 * depth, 2), divisor)
        self.qkv_proj = nn.Linear(width, (self.queries + 2 * self.keys) * head_dim, bias=False)
        self.out_proj = nn.Linear(self.queries * head_dim, width, bias=False)
        self.proj_1 = nn.Linear(width, 2 * inner, bias=False)
        self.proj_2 = nn.Linear(inner, width, bias=False)
        self.attn_norm, self.ffn_norm = nn.Parameter(torch.ones(width)), nn.Parameter(torch.ones(width))
        self.q_norm, self.k_norm = nn.Parameter(torch.ones(head_dim)), nn.Parameter(torch.ones(head_dim))

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        joint = self.qkv_proj(rms_norm(x, self.attn_norm)).view(batch, length, -1, self.head_dim).transpose(1, 2)
        q, k, v = joint.split([self.queries, self.keys, self.keys], dim=1)
        q, k = rotate(rms_norm(q, self.q_norm), cos, sin), rotate(rms_norm(k, self.k_norm), cos, sin)
        k, v = (t.repeat_interleave(GROUPS, dim=1) for t in (k, v))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out_proj(attended.transpose(1, 2).reshape(batch, length, -1))
        gate, up = self.proj_1(rms_norm(x, self.ffn_norm)).chunk(2, dim=-1)
        return x + self.proj_2(F.silu(gate) * up)


class Model(nn.Module):
    def __init__(self, size, rows):
        super().__init__()
        layers, width, head_dim, divisor = SIZES[size]
        self.table = nn.Parameter(torch.randn(rows, width) * width**-0.5)
        self.layers = nn.ModuleList(Layer(width, head_dim, divisor, index / (layers - 1)) for index in range(layers))
        self.norm = nn.Parameter(torch.ones(width))
        angles = torch.outer(torch.arange(4096.0), 10000.0 ** -(torch.arange(0, head_dim, 2) / head_dim))
        angles = torch.cat([angles, angles], dim=-1)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, ids):
        x = F.embedding(ids, self.table)
        for layer in self.layers:
            x = layer(x, self.cos[: ids.shape[1]], self.sin[: ids.shape[1]])
        return F.linear(rms_norm(x, self.norm), self.table)


def answer_sums(model, ids, labels):
    """Sums of the log-probabilities of the labels that count (TRL: `get_batch_logps`)."""
    logits, targets = model(ids)[:, :-1], labels[:, 1:].clone()
    counts = targets != -100
    targets[~counts] = 0
    found = logits.float().log_softmax(-1).gather(2, targets.unsqueeze(2)).squeeze(2)
    return (found * counts).sum(-1)


def preference_loss(kind, beta, policy, reference):
    pairs = policy.shape[0] // 2
    h = (policy[:pairs] - policy[pairs:]) - (reference[:pairs] - reference[pairs:])
    if kind == "sigmoid":
        return -F.logsigmoid(beta * h).mean()
    if kind == "hinge":
        return torch.relu(1 - beta * h).mean()
    return (h - 1 / (2 * beta)).square().mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SIZES, default="270M")
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--chosen", type=int, default=256)
    parser.add_argument("--rejected", type=int, default=256)
    parser.add_argument("--vocab", type=int, default=32128)
    parser.add_argument("--loss", choices=["sigmoid", "hinge", "ipo"], default="sigmoid")
    parser.add_argument("--beta", type=float, default=0.01)
    parser.add_argument("--dtype", choices=["bf16", "f32"], default="bf16")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Model(options.model, options.vocab).to(device)
    run = torch.compile(model) if options.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.0, fused=True)

    length = options.prompt + max(options.chosen, options.rejected)
    ids = torch.randint(0, options.vocab, (2 * options.pairs, length), device=device)
    ids[options.pairs :, : options.prompt] = ids[: options.pairs, : options.prompt]
    labels = ids.clone()
    labels[:, : options.prompt] = -100
    for rows, answer in [(slice(0, options.pairs), options.chosen), (slice(options.pairs, None), options.rejected)]:
        labels[rows, options.prompt + answer :] = -100

    def sums():
        with torch.autocast(device, torch.bfloat16, enabled=options.dtype == "bf16"):
            return answer_sums(run, ids, labels)

    with torch.no_grad():
        reference = sums()
    times, loss = [], None
    for _ in range(options.steps + 2):
        begin = time.perf_counter()
        loss = preference_loss(options.loss, options.beta, sums(), reference)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss = loss.item()
        times.append(time.perf_counter() - begin)
    times = times[2:]
    print(
        json.dumps(
            {
                "peer": "pytorch " + torch.__version__,
                **{name: getattr(options, name) for name in ["model", "pairs", "prompt", "chosen", "rejected", "loss", "dtype", "compile", "threads"]},
                "step_seconds": round(statistics.median(times), 4),
                "min": round(min(times), 4),
                "max": round(max(times), 4),
                "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                "final_loss": round(loss, 5),
            }
        )
    )


main()
