#!/usr/bin/env bash
# The calibrations of search with lite0 (docs/calibration.md 4 to 6): rrt_gld_ckpts/lite0_{late,maxsim,none}.calibration.json.
#   bash rrt_scripts/calibrate_lite0.sh
# After rrt_scripts/make_rerankers_lite0.sh. Fitted on the six landmarks that neither it nor rrt_scripts/make_lite0.sh has learned from, because
# photographs that a model has seen score otherwise. DATA=, LOGS= as there, OUTPUT= the folder (rrt_gld_ckpts).
set -euo pipefail
case ${1:-} in
    -h|--help) sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
    ?*) echo "error: $1: the script takes no argument; see --help" >&2; exit 2 ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
val=$data/landmarks_val
for needed in test_query.txt test_gallery.txt gnd_landmarks_val.pkl delg_lite0.h5; do
    [ -e "$val/$needed" ] || { echo "error: $val/$needed: no such file; run rrt_scripts/make_rerankers_lite0.sh first" >&2; exit 1; }
done
searched=(--store "$val/delg_lite0.h5" --query_list "$val/test_query.txt" --gallery_list "$val/test_gallery.txt"
    --ground_truth "$val/gnd_landmarks_val.pkl")

# fit NAME METHOD: the calibration of a method, then its groups.
fit() {
    local name=$1 method=$2 log=$logs/calibration_$1
    stage "$name"
    $py tools/calibrate.py "${searched[@]}" --method "$method" --output "$log"
    $py tools/calibrate.py "${searched[@]}" --method "$method" --groups "$log/calibration.json" --output "$log/groups"
    cp "$log/groups/calibration.json" "${OUTPUT:-rrt_gld_ckpts}/lite0_$name.calibration.json"
}
fit late late
fit none none
fit maxsim "maxsim[weight=0.2,symmetric=True,local=100]"
stage "done"
