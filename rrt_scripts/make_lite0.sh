#!/usr/bin/env bash
# The shipped model rrt_gld_ckpts/lite0.onnx and its LATE, from the published weights of EfficientNet-Lite0 and training photographs.
#   bash rrt_scripts/make_lite0.sh DATA [DATA ...]
# Each DATA holds train.txt and its images; of the first the six landmarks that rrt_scripts/landmarks.sh holds out for choices are left
# out. First a model whose projections are learned without labels, from synthetic scenes, too; on its descriptors rrt_gld_ckpts/
# late_lite0.safetensors by labels (rrt_scripts/make_rerankers_lite0.sh); from that which cells the global descriptor looks at (docs/models.md 4).
# Goes on where it was. DATA= and LOGS= change data and logs, OUTPUT= the folder rrt_gld_ckpts. Then: rrt_scripts/make_rerankers_lite0.sh
set -euo pipefail
case ${1:-} in
    -h|--help|"") sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; [ -n "${1:-}" ]; exit ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/collections.sh"
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
plain=$data/lite0_plain output=${OUTPUT:-rrt_gld_ckpts}
mkdir -p "$plain" "$output"

stage "holding out landmarks for choices; drawing the scenes"
$py tools/train_val_split.py "${collections[0]}/train.txt" "$plain/landmarks_train" "$plain/landmarks_val" --name landmarks_val \
    ${HELD_OUT:---landmarks 6 --queries 8 --distractors 400}
[ -e "$plain/scenes_train/train.txt" ] || $py tools/make_scenes.py --out "$plain"
learned_on=(--image_dir "${collections[0]}" --list "$plain/landmarks_train/train.txt")
for folder in "${collections[@]:1}" "$plain/scenes_train"; do learned_on+=(--image_dir "$folder" --list "$folder/train.txt"); done

stage "learning projections"
[ -e "$plain/lite0.onnx" ] || $py tools/make_lite0.py "${learned_on[@]}" --output "$plain/lite0.onnx"
DATA=$plain LOGS=${LOGS:-logs}/lite0_plain OUTPUT=$plain MODEL=onnx:$plain/lite0.onnx STAGES=late \
    bash rrt_scripts/make_rerankers_lite0.sh "${collections[@]}"

stage "what LATE looks at, of the photographs"
grep -v "^${#collections[@]}/" "$plain/lite0_rerankers/train.txt" > "$plain/photographs.txt"
$py tools/learn_attention.py "$plain/lite0_rerankers/delg_lite0.h5" "$plain/late_lite0.safetensors" "$plain/attention.npz" \
    --list "$plain/photographs.txt"
$py tools/make_lite0.py "${learned_on[@]}" --model "$plain/lite0.onnx" --attention "$plain/attention.npz" \
    --output "$output/lite0.onnx"
cp "$plain/late_lite0.safetensors" "$output/"
stage "done"
