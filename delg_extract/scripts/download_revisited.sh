#!/usr/bin/env bash
# Images, ground truth and lists of ROxford5k and RParis6k -> $DATA/oxford5k, $DATA/paris6k; options: tools/download_revisited.py --help
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../rrt_scripts/stages.sh"
exec "$py" tools/download_revisited.py --data_dir "$data" "$@"
