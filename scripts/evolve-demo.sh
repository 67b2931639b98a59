#!/bin/sh
# Three fine-tunes of one small model, each on another kind of text, and a search for the merge of them that is best on all three.
# The comparison at the end is on documents that neither a fine-tune nor the search has seen.
#
#     scripts/evolve-demo.sh MODEL CORPORA OUT
#
# MODEL: a small OpenELM in Hugging Face's layout, with its tokenizer. CORPORA: a folder with redpajama/{book,github,arxiv}/*.jsonl.
# OPENELM names the program (default: target/release/openelm), STEPS the updates of each fine-tune, GENERATIONS and CHARACTERS (of each
# document) the length of the search. LAYER_GENERATIONS, if set, is the length of a second search, for an order of layers.
set -eu
model=$(realpath "$1") corpora=$(realpath "$2") out=$3
openelm=$(realpath "${OPENELM:-target/release/openelm}")
mkdir -p "$out"
cd "$out"

# Of every eight documents six are for training, one for the search, one for the report.
for name in book github arxiv; do
    cat "$corpora"/redpajama/$name/*.jsonl | awk -v name=$name '{
        part = NR % 8 == 0 ? "report" : NR % 8 == 4 ? "search" : "train"
        print > name "-" part ".jsonl"
    }'
    for part in search report train; do [ -s $name-$part.jsonl ] || { echo "$name has too few documents" >&2; exit 1; }; done
done

python3 - "$model" <<'PY'
import json, sys
hf = json.load(open(sys.argv[1] + "/config.json"))
keys = ["num_transformer_layers", "model_dim", "head_dim", "num_gqa_groups", "qkv_multipliers", "ffn_multipliers", "ffn_dim_divisor",
        "vocab_size", "max_context_length", "rope_freq_constant", "rope_max_length", "normalize_qk_projections",
        "share_input_output_layers", "ffn_with_glu"]
model = "".join(f"  {key}: {json.dumps(hf[key])}\n" for key in keys)
for name in ["book", "github", "arxiv"]:
    open(name + ".yaml", "w").write(f"""name: {name}
model:
{model}tokenizer:
  path: {sys.argv[1]}
data:
  sequence_length: 256
  lanes: 4
  corpora:
    - name: {name}
      files: [{name}-train.jsonl]
training:
  steps: STEPS
  global_batch: 8
  micro_batch: 8
schedule:
  warmup_steps: 5
  max_lr: 0.001
  min_lr: 0.0001
checkpoint:
  every: STEPS
export:
  format: hf
""")
PY
for name in book github arxiv; do
    sed -i "s/STEPS/${STEPS:-60}/" $name.yaml
    [ -d runs-$name ] || "$openelm" train $name.yaml --init "$model" --out runs-$name
    [ -d model-$name ] || "$openelm" export runs-$name --format hf --out model-$name
done

# An export leaves out the embedding's padding rows, so the base must be exported too.
[ -d model-base ] || "$openelm" export "$model" --format hf --out model-base

# What both searches look at, and what they are told apart by afterwards.
measures=$(cat <<YAML
objective:
  files: [book-search.jsonl, github-search.jsonl, arxiv-search.jsonl]
  characters: ${CHARACTERS:-1500}
report:
  files: [book-report.jsonl, github-report.jsonl, arxiv-report.jsonl]
  characters: ${CHARACTERS:-1500}
YAML
)

cat > search.yaml <<YAML
# Weights of three task vectors at three depths of the model.
merge_method: task_arithmetic
base_model: model-base
models: [model-book, model-github, model-arxiv]
search:
  weight: {from: -0.2, to: 1.4, start: 0.5}
layer_groups: ${GROUPS_OF_LAYERS:-2}
seed: 1
population: 8
generations: ${GENERATIONS:-15}
sigma: 0.15
$measures
YAML
rm -rf search
"$openelm" merge evolve search.yaml --out search

[ -n "${LAYER_GENERATIONS:-}" ] || exit 0
cat > layers.yaml <<YAML
# Layers of the three fine-tunes in another order, with factors for the stream.
merge_method: passthrough
models: [model-github, model-book, model-arxiv]
data_flow: {repetitions: 1, max_layers: 16, scale: {from: 0.5, to: 1.5, start: 1}}
seed: 1
generations: $LAYER_GENERATIONS
sigma: 0.15
$measures
YAML
rm -rf layers
"$openelm" merge evolve layers.yaml --out layers
