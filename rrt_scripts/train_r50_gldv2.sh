#!/usr/bin/env bash
# Reranker for DELG ResNet-50 (GLDv2 clean), trained on Google Landmarks v2 as published; settings: train.sh --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/train.sh" r50 gldv2 max_norm=0.0 "$@"
