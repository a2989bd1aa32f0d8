#!/usr/bin/env bash
# Google Landmarks v2 with DELG ResNet-50 (GLDv1) -> data/gldv2/delg_r50_gldv1.h5; settings: extract.sh --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/extract.sh" gldv2 r50 gldv1 "$@"
