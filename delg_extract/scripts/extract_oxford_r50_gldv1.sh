#!/usr/bin/env bash
# ROxford5k with DELG ResNet-50 (GLDv1) -> data/oxford5k/delg_r50_gldv1.h5; settings: extract.sh --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/extract.sh" oxford r50 gldv1 "$@"
