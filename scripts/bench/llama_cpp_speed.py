"""llama.cpp's side of the inference comparison: one JSON line, as `openelm bench infer` prints.

    CMAKE_ARGS=-DGGML_AMX_TILE=OFF pip install llama-cpp-python==0.3.36
    python scripts/bench/llama_cpp_speed.py out/270m-q8_0.gguf -p 512 -n 64 --threads 2
"""

import argparse
import ctypes
import json
import resource
import statistics
import time

import llama_cpp

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model")
parser.add_argument("-p", "--prompt", type=int, default=512)
parser.add_argument("-n", "--new", type=int, default=64)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--repeat", type=int, default=3)
args = parser.parse_args()

llama_cpp.llama_backend_init()
# Kept alive: ctypes frees a callback that nobody holds.
silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
begin = time.perf_counter()
model = llama_cpp.llama_model_load_from_file(args.model.encode(), llama_cpp.llama_model_default_params())
settings = llama_cpp.llama_context_default_params()
settings.n_ctx = args.prompt + args.new + 8
settings.n_batch = settings.n_ubatch = max(args.prompt, 1)
settings.n_threads = settings.n_threads_batch = args.threads
context = llama_cpp.llama_init_from_model(model, settings)
load = time.perf_counter() - begin
vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
tokens = (llama_cpp.llama_token * args.prompt)(*[(i * 7919 + 13) % (vocabulary - 3) + 3 for i in range(args.prompt)])
memory = llama_cpp.llama_get_memory(context)
prefill, decode, quickest = [], [], 1e9
for _ in range(args.repeat + 1):
    llama_cpp.llama_memory_clear(memory, True)
    begin = time.perf_counter()
    llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, args.prompt))
    prefill.append(args.prompt / (time.perf_counter() - begin))
    one = (llama_cpp.llama_token * 1)(5)
    begin = time.perf_counter()
    for i in range(args.new):
        one[0] = (i * 31 + 7) % (vocabulary - 3) + 3
        start = time.perf_counter()
        llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(one, 1))
        quickest = min(quickest, time.perf_counter() - start)
    decode.append(args.new / (time.perf_counter() - begin))
print(json.dumps({
    "prefill_tokens_per_second": round(statistics.median(prefill[1:]), 1),
    "decode_tokens_per_second": round(statistics.median(decode[1:]), 1),
    "quickest_token_seconds": quickest,
    "load_seconds": round(load, 3),
    "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
}))  # fmt: skip
