#!/usr/bin/env bash
# ROxford5k, DELG ResNet-50 (GLDv2 clean), global search; settings: eval.sh --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/eval.sh" r50 gldv2 roxf global "$@"
