#!/usr/bin/env bash
# The whole pipeline on real photographs: descriptors, RRT, and its measure on landmarks never seen in training.
#   bash rrt_scripts/real_photos.sh DATA
#   BACKBONE=r50 bash rrt_scripts/real_photos.sh DATA     trains DELG with ResNet-50 first, instead of taking the shipped lite0
# DATA holds train.txt, test_query.txt, test_gallery.txt, gnd_landmarks.pkl and their images; for DELG, beside it lie landmarks96/
# (train.txt and small images for the classifiers) and weights/ (ImageNet ResNet-50). Writes below data/ and logs/; goes on where it
# was. From the extraction on it is rrt_scripts/train_landmarks.sh, whose settings by environment hold here, too.
set -euo pipefail
case ${1:-} in
    -h|--help|"") sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; [ -n "${1:-}" ]; exit ;;
esac
source=$(cd "$1" 2>/dev/null && pwd) || { echo "error: $1: no such folder; give the folder that holds train.txt and test_query.txt" >&2; exit 1; }
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
source rrt_scripts/landmarks.sh

if [ "$backbone" = r50 ]; then
    imagenet=$source/../weights/resnet50_imagenet_conv1_to_conv4_notop.h5
    stage "starting DELG: ImageNet conv1 to conv4, heads from principal components at 320 pixels"
    delg() {
        "$py" delg_extract/train.py --delg_global_features --freeze conv4 --report_interval 20 --eval_interval 100 --save_interval 100 \
            --eval_images 300 "$@"
    }
    [ -e "$logs/delg_r50_start/weights.h5" ] || delg --train_list "$train/train.txt" --image_dir "$source" \
        --imagenet_checkpoint "$imagenet" --partial_weights --conv5_start identity --init_heads_steps 100 --image_size 320 \
        --batch_size 8 --min_crop_area 0.3 --max_iters 0 --logdir "$logs/delg_r50_start"
    stage "training DELG: conv5 and both heads, 600 steps of 32 crops of 128 pixels"
    [ -e "$logs/delg_r50/weights.h5" ] || delg --train_list "$train/train.txt" --image_dir "$source" --repeat 4 \
        --train_list "$source/../landmarks96/train.txt" --image_dir "$source/../landmarks96" --repeat 1 \
        --init_weights "$logs/delg_r50_start/weights.h5" --init_heads_steps 60 --image_size 128 --batch_size 32 --min_crop_area 0.2 \
        --max_iters 600 --initial_lr 0.005 --logdir "$logs/delg_r50"
    export WEIGHTS=$logs/delg_r50/weights.h5
fi
bash rrt_scripts/train_landmarks.sh "$source"

stage "pairs of test photographs: how well verified matches tell the same building from another"
"$py" tools/verify_pairs.py --store "$test/delg_$backbone.h5" --ground_truth "$test/gnd_landmarks_test.pkl" --query_list "$test/test_query.txt" \
    --gallery_list "$test/test_gallery.txt" --output "$log/pairs.csv"
stage "the same measure of the reranker in the precision that multiplies fastest here"
"$py" evaluate_revisited.py with temp_dir="$log/auto" dataset.landmarks model.RRT dataset.max_sequence_len=100 \
    dataset.train_data_dir="$train" dataset.val_data_dir="$val" dataset.test_data_dir="$test" resume="$log/best.pt" \
    dataset.desc_name="$backbone" "${whitened[@]}" fusion="$log/fusion.json" precision=auto
stage "done; results in $log"
