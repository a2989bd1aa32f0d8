#!/usr/bin/env bash
# Google Landmarks v2 with DELG ResNet-101 (GLDv2 clean) -> data/gldv2/delg_r101_gldv2.h5; settings: extract.sh --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/extract.sh" gldv2 r101 gldv2 "$@"
