#!/usr/bin/env bash
# ROxford5k, DELG ResNet-101 (GLDv2 clean), 100 reranked; settings: eval.sh --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/eval.sh" r101 gldv2 roxf rerank "$@"
