#!/usr/bin/env bash
# ROxford5k, DELG ResNet-101 (GLDv1), 100 reranked; settings: eval.sh --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/eval.sh" r101 gldv1 roxf rerank "$@"
