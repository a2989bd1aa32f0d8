#!/usr/bin/env bash
# Photographs in, a reranked and measured result out.
#   bash rrt_scripts/quickstart.sh           on synthetic landmark scenes it draws itself
#   bash rrt_scripts/quickstart.sh PHOTOS    on your photographs, a sub-folder per landmark: some landmarks are held out and measured
# Writes below data/ and logs/ (DATA=, LOGS= change the folders). What an interrupted run has finished is not done again.
# Settings by environment: SIZE (longest side, pixels), WEIGHTS (DELG weight file, instead of lite0), SCENES (options of
# tools/make_scenes.py), TRAINING (settings of experiment.py), TEST_FRACTION and QUERIES (how many landmarks of PHOTOS are held out,
# queries of each).
set -euo pipefail
photos=""
case ${1:-} in
    -h|--help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    "") ;;
    *) photos=$(cd "$1" 2>/dev/null && pwd) || { echo "error: $1: no such folder; give a folder with a sub-folder per landmark" >&2; exit 1; } ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"

if [ -z "$photos" ]; then
    name=scenes
    stage "drawing the scenes"
    $py tools/make_scenes.py --out "$data" ${SCENES:-}
    train_images=$data/scenes_train test_images=$data/scenes_test
else
    name=$(basename "$photos" | tr -c 'A-Za-z0-9\n' '_')
    stage "listing $photos"
    $py tools/prepare_data.py folder "$photos" "$data/$name/all.txt" --allow_missing
    $py tools/train_val_split.py "$data/$name/all.txt" "$data/${name}_train" "$data/${name}_test" --name "${name}_test" \
        --fraction "${TEST_FRACTION:-0.4}" --queries "${QUERIES:-3}"
    train_images=$photos test_images=$photos
fi
train=$data/${name}_train test=$data/${name}_test log=$logs/quickstart_$name gnd=gnd_${name}_test.pkl

stage "extracting descriptors"
if [ -n "${WEIGHTS:-}" ]; then
    descriptors=delg
    extract() {
        $py delg_extract/extract.py --weights "$WEIGHTS" --max_image_size "${SIZE:-320}" --max_features 200 --no-block3_strides \
            --allow_missing "$@"
    }
else
    descriptors=lite0
    extract() { $py tools/extract.py --model lite0 ${SIZE:+--image_size "$SIZE"} --allow_missing "$@"; }
fi
extract --image_dir "$train_images" --list "$train/train.txt" --output "$train/delg_$descriptors.h5"
extract --image_dir "$test_images" --list "$test/test_gallery.txt" --query_list "$test/test_query.txt" \
    --ground_truth "$test/$gnd" --output "$test/delg_$descriptors.h5"

stage "finding neighbours"
$py tools/prepare_topk_gldv2.py with data_dir="$train" feature_name=$descriptors
$py tools/prepare_topk_revisited.py with data_dir="$test" feature_name=$descriptors gnd_name="$gnd"

settings="dataset.scenes model.RRT dataset.name=$name dataset.desc_name=$descriptors"
stage "reranking by plain matching, which has learned nothing"
$py evaluate_revisited.py -F "$log/maxsim" with temp_dir="$log/maxsim" $settings dataset.test_data_dir="$test" \
    dataset.test_gnd_file="$gnd" $matching

stage "training the reranking transformer"
$py experiment.py -F "$log" with temp_dir="$log" $settings dataset.train_data_dir="$train" dataset.val_data_dir=None resume=auto \
    ${TRAINING:-$(sed 's/#.*//' rrt_scripts/recipes/quickstart.txt)}

stage "reranking by the transformer landmarks that it has never seen"
$py evaluate_revisited.py -F "$log" with temp_dir="$log" $settings dataset.test_data_dir="$test" dataset.test_gnd_file="$gnd" \
    dataset.max_sequence_len=100 resume="$log/best.pt"
stage "done"
echo "stores, lists and neighbours: $train/ and $test/"
echo "checkpoints, settings and results: $log/"
