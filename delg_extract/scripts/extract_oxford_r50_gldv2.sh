#!/usr/bin/env bash
# ROxford5k with DELG ResNet-50 (GLDv2 clean) -> data/oxford5k/delg_r50_gldv2.h5; settings: extract.sh --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/extract.sh" oxford r50 gldv2 "$@"
