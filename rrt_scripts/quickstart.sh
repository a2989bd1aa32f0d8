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
    *) photos=$(cd "$1" 2>/dev/null && pwd) || { echo "error: $1: no such folder; give a folder with a sub-folder per landmark" >&2; exit 1; }
       landmarks=0
       for folder in "$photos"/[!.@#]*/; do
           case $folder in
               */__MACOSX/) ;;
               *) [ -z "$(ls "$folder" 2>/dev/null)" ] || landmarks=$((landmarks + 1)) ;;
           esac
       done
       if [ "$landmarks" -lt 3 ]; then
           echo "error: $1: $landmarks landmarks (sub-folders with photographs); three are needed, two to train on and one to hold out" >&2
           exit 1
       fi ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"

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
if [ -z "$photos" ]; then
    name=scenes
    stage "drawing the scenes"
    $py tools/make_scenes.py --out "$data" ${SCENES:-}
else
    name=$(basename "$photos" | tr -c 'A-Za-z0-9\n' '_')
fi
train=$data/${name}_train test=$data/${name}_test log=$logs/quickstart_$name gnd=gnd_${name}_test.pkl

if [ -z "$photos" ]; then
    images=$test
    stage "extracting descriptors"
    extract --image_dir "$train" --list "$train/train.txt" --output "$train/delg_$descriptors.h5"
    extract --image_dir "$test" --list "$test/test_gallery.txt" --query_list "$test/test_query.txt" \
        --ground_truth "$test/$gnd" --output "$test/delg_$descriptors.h5"
else
    images=$photos
    stage "listing $photos"
    $py tools/prepare_data.py folder "$photos" "$data/$name/all.txt" --allow_missing
    stage "extracting descriptors"
    extract --image_dir "$photos" --list "$data/$name/all.txt" --output "$data/$name/delg_$descriptors.h5"
    stage "holding out landmarks"  # of the photographs that have descriptors
    $py tools/train_val_split.py "$data/$name/all.txt" "$train" "$test" --name "${name}_test" --store "$data/$name/delg_$descriptors.h5" \
        --fraction "${TEST_FRACTION:-0.4}" --queries "${QUERIES:-3}"
fi

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

stage "reranking by the transformer landmarks that it has never seen, and by all that it is to beat on the same candidates"
measured="dataset.test_gnd_file=$gnd dataset.max_sequence_len=100 baselines=True"
$py evaluate_revisited.py -F "$log" with temp_dir="$log" $settings dataset.test_data_dir="$test" $measured resume="$log/best.pt"
stage "writing the report"
$py tools/report.py "$log" "$log/maxsim" --image_dir "$images" --out "$log/report"

stage "done"
echo "stores, lists and neighbours: $train/ and $test/"
echo "checkpoints, settings and results: $log/"
echo
echo "every query with its results, in a browser: $log/report/index.html"
if [ -n "$photos" ]; then
    echo "search in these photographs, from $PWD:"
    echo "    $py tools/search.py build '$photos' --index '$photos.index'"
    echo "    $py tools/search.py query '$photos.index' PHOTOGRAPH --html found.html"
    echo "    $py tools/search.py serve '$photos.index'"
fi
echo "train on from where this ended, and measure again, from $PWD:"
echo "    $py experiment.py -F '$log' with temp_dir='$log' $settings dataset.train_data_dir='$train' dataset.val_data_dir=None \\"
echo "        resume=auto $(echo ${TRAINING:-$(sed 's/#.*//' rrt_scripts/recipes/quickstart.txt)} | sed 's/\bepochs=[0-9]*/epochs=4/')"
echo "    $py evaluate_revisited.py -F '$log' with temp_dir='$log' $settings dataset.test_data_dir='$test' \\"
echo "        $measured resume='$log/best.pt'"
