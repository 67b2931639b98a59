#!/usr/bin/env bash
# UltraFeedback's cleaned preference pairs, which OpenELM's instruct models were tuned on, into data/corpora/ultrafeedback.
#
#     scripts/fetch/ultrafeedback.sh [--out FOLDER] [--dry-run]
#
# Licence: MIT, as its publisher says; the answers come from many models, each with terms of its own.
# Published as https://huggingface.co/datasets/csarron/argilla-ultrafeedback-binarized-preferences-cleaned.
# Not tried against the real server.

set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/download.sh"
fetch_arguments "$@"

fetch_hub csarron/argilla-ultrafeedback-binarized-preferences-cleaned "$out/ultrafeedback" 'data/train-*.parquet' 'data/test-*.parquet'
