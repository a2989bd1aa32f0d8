#!/usr/bin/env bash
# From nothing to an exported model: downloads Google Landmarks v2, writes TFRecords of its clean part, trains, exports.
#   bash delg_extract/scripts/train.sh delg|delf r50|r101|small [FLAGS of delg_extract/train.py]
# delf trains in two stages: the trunk by classification, then the attention on the frozen trunk. Every step goes on where it was.
# Settings by environment (relative paths start from the repository):
#   DATA          folder of the data sets (data); GLDv2 goes to DATA/gldv2, its TFRecords to DATA/gldv2/tfrecord
#   LOGS          folder of the runs (logs)
#   TARS          tar files of train, index and test to fetch ("500 0 0"); with less than 500, images that are missing are passed over
#   BASE_URL      a mirror of the data set
#   IMAGENET      weight file the trunk starts from (the published ResNet-50's); "none": from noise
#   BUILD_FLAGS   more flags of delg_extract/build_image_dataset.py
set -euo pipefail
fail() { echo "error: $1" >&2; exit 1; }
case " $* " in *" -h "*|*" --help "*) set -- --help ;; esac  # also behind what train_*.sh say
case ${1:-} in
    -h|--help) sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    delg|delf) kind=$1 ;;
    *) fail "'${1:-}' is no model; expected delg or delf" ;;
esac
case ${2:-} in
    r50) backbone=resnet50 ;;
    r101) backbone=resnet101 ;;
    small) backbone=small ;;
    *) fail "'${2:-}' is no trunk; expected r50, r101 or small" ;;
esac
name=${kind}_$2
shift 2
source "$(dirname "${BASH_SOURCE[0]}")/../../rrt_scripts/stages.sh"

read -r train index test <<< "${TARS:-500 0 0}"
folder=$data/gldv2 records=$data/gldv2/tfrecord log=$logs/${name}_gldv2_clean
imagenet=${IMAGENET:-$data/models/resnet50_imagenet_weights/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5}
if [ "$imagenet" != none ] && [ ! -e "$imagenet" ]; then
    [ "$backbone" = resnet50 ] || fail "$imagenet: not the weights of a $backbone; give a Keras file by IMAGENET=, or none"
    fail "$imagenet: no such file; fetch it with: $py delg_extract/download_weights.py resnet50_imagenet_weights (or give another by IMAGENET=)"
fi
start=(); [ "$imagenet" = none ] || start=(--imagenet_checkpoint "$imagenet")

stage "downloading GLDv2: $train, $index and $test tar files"
$py delg_extract/download_dataset.py "$train" "$index" "$test" --output_dir "$folder" ${BASE_URL:+--base_url "$BASE_URL"}

stage "writing TFRecords of the clean part"
[ "$train" -ge 500 ] || BUILD_FLAGS="--allow_missing ${BUILD_FLAGS:-}"
# shellcheck disable=SC2086
$py delg_extract/build_image_dataset.py --train_directory "$folder/train" --train_csv_path "$folder/train/train.csv" \
    --train_clean_csv_path "$folder/train/train_clean.csv" --output_directory "$records" --generate_train_validation_splits ${BUILD_FLAGS:-}

train() {
    $py delg_extract/train.py --train_file_pattern "$records/train*" --validation_file_pattern "$records/validation*" --backbone "$backbone" "$@"
}
if [ "$kind" = delg ]; then
    stage "training DELG: global and local heads at once"
    train --delg_global_features --logdir "$log" "${start[@]}" "$@"
else
    stage "training DELF, first stage: the trunk"
    train --stage finetune --use_autoencoder=false --logdir "$log/finetune" "${start[@]}" "$@"
    stage "training DELF, second stage: the attention"
    train --stage keypoint --use_autoencoder=false --logdir "$log" --init_weights "$log/finetune/weights.h5" "$@"
fi

stage "exporting"
kinds=local; [ "$kind" = delf ] || kinds="local global local_and_global kaggle"
for one in $kinds; do
    [ -e "$log/$one" ] || $py delg_extract/export.py --kind "$one" --ckpt_path "$log/weights.h5" --export_path "$log/$one"
done
stage "done; weights and exported models in $log"
