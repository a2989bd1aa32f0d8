#!/usr/bin/env bash
# DELF with ResNet-50, in two stages on the clean part of GLDv2 -> logs/delf_r50_gldv2_clean; settings: train.sh --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/train.sh" delf r50 "$@"
