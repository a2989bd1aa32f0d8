#!/usr/bin/env bash
# DELG with ResNet-101 on the clean part of GLDv2 -> logs/delg_r101_gldv2_clean; settings: train.sh --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/train.sh" delg r101 "$@"
