#!/usr/bin/env bash
# RParis6k, DELG ResNet-50 (GLDv2 clean), 100 reranked; settings: eval.sh --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/eval.sh" r50 gldv2 rpar rerank "$@"
