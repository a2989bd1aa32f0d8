#!/usr/bin/env bash
# Images, ground truth and lists of ROxford5k and RParis6k -> $DATA/oxford5k, $DATA/paris6k; options: tools/download_revisited.py --help
set -euo pipefail
case ${1:-} in -h|--help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
source "$(dirname "${BASH_SOURCE[0]}")/../../rrt_scripts/stages.sh"
exec "$py" tools/download_revisited.py --data_dir "$data" "$@"
