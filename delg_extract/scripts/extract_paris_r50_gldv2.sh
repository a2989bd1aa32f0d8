#!/usr/bin/env bash
# RParis6k with DELG ResNet-50 (GLDv2 clean) -> data/paris6k/delg_r50_gldv2.h5; settings: extract.sh --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/extract.sh" paris r50 gldv2 "$@"
