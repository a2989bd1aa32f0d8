#!/usr/bin/env bash
# The reranker on photographs of your own: descriptors by a DELG weight file, whitening, training, fusion, and the measure on test landmarks.
#   bash rrt_scripts/train_landmarks.sh DATA [SETTINGS of experiment.py, as name=value]
# DATA holds train.txt, test_query.txt, test_gallery.txt, gnd_landmarks.pkl and their images. Every setting is chosen on held-out training
# landmarks (landmarks_val), the test landmarks are measured once, at the end. Writes below data/ and logs/; goes on where it was.
# Settings by environment (relative paths start from the repository):
#   DATA, LOGS  folders of the data sets (data) and of the results (logs); those of this script are landmarks_* and rrt_landmarks below them
#   WEIGHTS     DELG weight file of delg_extract/train.py; not needed where the stores are there
#   TRAINING    settings of experiment.py instead of those in rrt_scripts/recipes/real_photos.txt
#   HELD_OUT    options of tools/train_val_split.py (--landmarks 6 --queries 8 --distractors 400)
#   WHITENING   options of tools/learn_whitening.py (--dim 700 --power 0.1)
set -euo pipefail
fail() { echo "error: $1" >&2; exit 1; }
case ${1:-} in
    -h|--help|"") sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; [ -n "${1:-}" ]; exit ;;
esac
source=$(cd "$1" 2>/dev/null && pwd) || fail "$1: no such folder; give the folder that holds train.txt and test_query.txt"
shift
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
if [ -n "${WEIGHTS:-}" ]; then
    [ -e "$WEIGHTS" ] || fail "$WEIGHTS: no such weight file; train one with: bash rrt_scripts/real_photos.sh $source"
else
    for part in train test; do
        store=$data/landmarks_$part/delg_r50.h5
        [ -e "$store" ] || fail "$store: no such store; give a DELG weight file by WEIGHTS=, or make both with: bash rrt_scripts/real_photos.sh $source"
    done
fi
source rrt_scripts/landmarks.sh

if [ -n "${WEIGHTS:-}" ]; then
    stage "extracting descriptors at 384 pixels, six scales"
    extract() {
        "$py" delg_extract/extract.py --weights "$WEIGHTS" --image_dir "$source" --max_image_size 384 --max_features 500 \
            --scales 0.25 0.35355338 0.5 0.70710677 1.0 1.4142135 "$@"
    }
    extract --list "$val/test_query.txt" --list "$val/test_gallery.txt" --list "$train/train.txt" --output "$train/delg_r50.h5"
    extract --list "$test/test_gallery.txt" --query_list "$test/test_query.txt" --ground_truth "$test/gnd_landmarks_test.pkl" \
        --output "$test/delg_r50.h5"
fi
ln -sfn "$(cd "$train" && pwd)/delg_r50.h5" "$val/delg_r50.h5"

stage "whitening learned on the training photographs; neighbours"
whitening=$train/whitening_r50.npz
# shellcheck disable=SC2086
"$py" tools/learn_whitening.py "$train/delg_r50.h5" "$whitening" --list "$train/train.txt" ${WHITENING:---dim 700 --power 0.1}
"$py" tools/prepare_topk_gldv2.py with data_dir="$train" feature_name=r50 whitening="$whitening"
for part in val test; do
    "$py" tools/prepare_topk_revisited.py with data_dir="$data/landmarks_$part" feature_name=r50 gnd_name="gnd_landmarks_$part.pkl" \
        whitening="$whitening"
done

log=$logs/rrt_landmarks
common=(dataset.landmarks model.RRT dataset.max_sequence_len=100
        dataset.train_data_dir="$train" dataset.val_data_dir="$val" dataset.test_data_dir="$test")
stage "training the reranking transformer"
# shellcheck disable=SC2046,SC2086
"$py" experiment.py -F "$log" with temp_dir="$log" "${common[@]}" resume=auto \
    ${TRAINING:-$(sed 's/#.*//' rrt_scripts/recipes/real_photos.txt)} "$@"
stage "choosing the fusion with global similarity on the validation landmarks"
"$py" tools/tune_fusion.py with temp_dir="$log" "${common[@]}" resume="$log/best.pt" whitening="$whitening"
stage "measuring the test landmarks: RRT alone, and fused"
"$py" evaluate_revisited.py with temp_dir="$log/alone" "${common[@]}" resume="$log/best.pt" whitening="$whitening"
"$py" evaluate_revisited.py -F "$log" with temp_dir="$log" "${common[@]}" resume="$log/best.pt" whitening="$whitening" \
    fusion="$log/fusion.json"
stage "done; results in $log"
