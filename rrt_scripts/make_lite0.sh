#!/usr/bin/env bash
# The shipped model rrt_gld_ckpts/lite0.onnx from the published weights of EfficientNet-Lite0 and training photographs.
#   bash rrt_scripts/make_lite0.sh DATA [DATA ...]
# Each DATA holds train.txt and its images; of the first the six landmarks that rrt_scripts/landmarks.sh holds out for choices are left
# out. Synthetic scenes are learned from, too. Writes below data/ (DATA= changes the folder) and OUTPUT (rrt_gld_ckpts/lite0.onnx).
set -euo pipefail
case ${1:-} in
    -h|--help|"") sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; [ -n "${1:-}" ]; exit ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/collections.sh"
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"

stage "holding out landmarks for choices; drawing the scenes"
$py tools/train_val_split.py "${collections[0]}/train.txt" "$data/landmarks_train" "$data/landmarks_val" --name landmarks_val \
    ${HELD_OUT:---landmarks 6 --queries 8 --distractors 400}
[ -e "$data/scenes_train/train.txt" ] || $py tools/make_scenes.py --out "$data"
learned_on=(--image_dir "${collections[0]}" --list "$data/landmarks_train/train.txt")
for folder in "${collections[@]:1}"; do learned_on+=(--image_dir "$folder" --list "$folder/train.txt"); done

stage "learning projections, writing the model"
$py tools/make_lite0.py "${learned_on[@]}" --image_dir "$data/scenes_train" --list "$data/scenes_train/train.txt" \
    --output "${OUTPUT:-rrt_gld_ckpts/lite0.onnx}"
stage "done"
