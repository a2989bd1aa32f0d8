#!/usr/bin/env bash
# Reranker for DELG ResNet-50 (GLDv1), trained on Google Landmarks v2 as published; settings: train.sh --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/train.sh" r50 gldv1 max_norm=0.1 "$@"
