#!/usr/bin/env bash
# RParis6k, DELG ResNet-101 (GLDv2 clean), global search; settings: eval.sh --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/eval.sh" r101 gldv2 rpar global "$@"
