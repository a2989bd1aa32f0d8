#!/usr/bin/env bash
# ROxford5k, DELG ResNet-50 (GLDv1), global search; settings: eval.sh --help
exec bash "$(dirname "${BASH_SOURCE[0]}")/eval.sh" r50 gldv1 roxf global "$@"
