#!/usr/bin/env bash
# The calibrations of search with lite0 (docs/calibration.md 4 to 6): rrt_gld_ckpts/lite0_{late,maxsim,none}.calibration.json.
#   bash rrt_scripts/calibrate_lite0.sh DATA [DATA ...]
# The folders that rrt_scripts/make_lite0.sh was given, after it has run. The shipped projections have seen most of these photographs, and
# photographs they have seen score otherwise: eleven landmarks are held out (FOLDS="1 2": twice), and projections learned from the others;
# the six landmarks that make_lite0.sh left out are scored by the shipped model itself; what the network has seen too much of for any fold, late,
# and global search are fitted on these alone, and so are the groups of all. Ten minutes a fold; DATA= as there, OUTPUT= the folder.
set -euo pipefail
case ${1:-} in
    -h|--help|"") sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; [ -n "${1:-}" ]; exit ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/collections.sh"
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
for needed in "$data/landmarks_train/train.txt" "$data/landmarks_val/test_query.txt" "$data/scenes_train/train.txt"; do
    [ -e "$needed" ] || { echo "error: $needed: no such file; run rrt_scripts/make_lite0.sh first" >&2; exit 1; }
done

stage "joining the collections"
joined=$data/calibration/joined
mkdir -p "$joined"
lists=("$data/landmarks_train/train.txt")
for folder in "${collections[@]:1}"; do lists+=("$folder/train.txt"); done
for number in "${!lists[@]}"; do
    ln -sfn "${collections[number]}" "$joined/$number"
    awk -F, -v OFS=, -v of="$number" '{ $1 = of "/" $1; $2 += 1000 * of; print }' "${lists[number]}"
done > "$joined/train.txt"

searches=()
for fold in ${FOLDS:-1}; do
    stage "fold $fold: projections without eleven landmarks, and the descriptors of these"
    at=$data/calibration/$fold
    $py tools/train_val_split.py "$joined/train.txt" "$at/train" "$at/val" --name val ${FOLD:---landmarks 11 --queries 8} --seed "$fold"
    [ -e "$at/lite0.onnx" ] || $py tools/make_lite0.py --image_dir "$joined" --list "$at/train/train.txt" \
        --image_dir "$data/scenes_train" --list "$data/scenes_train/train.txt" --output "$at/lite0.onnx"
    [ -e "$at/val/delg_lite0.h5" ] || $py tools/extract.py --model "onnx:$at/lite0.onnx" --image_dir "$joined" \
        --list "$at/val/test_query.txt" --list "$at/val/test_gallery.txt" --output "$at/val/delg_lite0.h5"
    searches+=(--store "$at/val/delg_lite0.h5" --query_list "$at/val/test_query.txt" --gallery_list "$at/val/test_gallery.txt"
        --ground_truth "$at/val/gnd_val.pkl")
done

stage "the six landmarks that the shipped model has not seen"
val=$data/landmarks_val
[ -e "$val/delg_lite0.h5" ] || $py tools/extract.py --model lite0 --image_dir "${collections[0]}" --list "$val/test_query.txt" \
    --list "$val/test_gallery.txt" --output "$val/delg_lite0.h5"
unseen=(--store "$val/delg_lite0.h5" --query_list "$val/test_query.txt" --gallery_list "$val/test_gallery.txt"
    --ground_truth "$val/gnd_landmarks_val.pkl")

# fit NAME METHOD SEARCH: the calibration of a method, then its groups on the six landmarks.
fit() {
    local name=$1 method=$2 log=$logs/calibration_$1
    shift 2
    stage "$name"
    $py tools/calibrate.py "$@" --method "$method" --output "$log"
    $py tools/calibrate.py "${unseen[@]}" --method "$method" --groups "$log/calibration.json" --output "$log/groups"
    cp "$log/groups/calibration.json" "${OUTPUT:-rrt_gld_ckpts}/lite0_$name.calibration.json"
}
fit late late "${unseen[@]}"
fit none none "${unseen[@]}"
fit maxsim "maxsim[weight=0.2,symmetric=True,local=100]" "${searches[@]}" "${unseen[@]}"
stage "done"
