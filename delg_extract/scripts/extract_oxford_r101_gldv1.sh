#!/usr/bin/env bash
# ROxford5k with DELG ResNet-101 (GLDv1) -> data/oxford5k/delg_r101_gldv1.h5; settings: extract.sh --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/extract.sh" oxford r101 gldv1 "$@"
