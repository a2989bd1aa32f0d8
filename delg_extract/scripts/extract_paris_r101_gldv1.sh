#!/usr/bin/env bash
# RParis6k with DELG ResNet-101 (GLDv1) -> data/paris6k/delg_r101_gldv1.h5; settings: extract.sh --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/extract.sh" paris r101 gldv1 "$@"
