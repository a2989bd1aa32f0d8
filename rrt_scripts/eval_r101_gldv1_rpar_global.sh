#!/usr/bin/env bash
# RParis6k, DELG ResNet-101 (GLDv1), global search; settings: eval.sh --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/eval.sh" r101 gldv1 rpar global "$@"
