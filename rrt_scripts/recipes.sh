#!/usr/bin/env bash
# Which ways of training the reranker pay: every recipe of recipes/scenes.txt and, with DATA, of recipes/landmarks.txt, over three seeds.
#   bash rrt_scripts/recipes.sh [DATA]
# After rrt_scripts/quickstart.sh and, with DATA (its folder of photographs), BACKBONE=r50 rrt_scripts/real_photos.sh, whose stores it uses. Recipes
# are compared on held-out training landmarks; by four folds over all of them those of a teacher (recipes/landmarks_folds.txt), when lite0 has
# described them (rrt_scripts/train_landmarks.sh DATA), and those of LATE and then of a small RRT (late_folds.txt, rrt_folds.txt), on the images
# that rrt_scripts/make_rerankers_lite0.sh joins, after that. TEST="NAME .." measures those recipes on the test set, too, once the choice is made.
# SEEDS="0 1 2", JOBS=1 (runs at a time), FOLDS=4. Writes data/*_views, data/scenes_fit, data/scenes_val and logs/recipes_*; hours; goes on where it was.
set -euo pipefail
case ${1:-} in
    -h|--help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
esac
if [ -n "${1:-}" ]; then
    source=$(cd "$1" 2>/dev/null && pwd) || { echo "error: $1: no such folder; give the one real_photos.sh was given" >&2; exit 1; }
fi
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
need() { [ -e "$1" ] || { echo "error: $1: no such file; make it with: $2" >&2; exit 1; }; }
need "$data/scenes_train/delg_lite0.h5" "bash rrt_scripts/quickstart.sh"
[ -z "${source:-}" ] || need "$data/landmarks_train/whitening_r50.npz" "BACKBONE=r50 bash rrt_scripts/real_photos.sh $source"
if [ "$data $logs" != "data logs" ]; then
    echo "error: DATA=$data LOGS=$logs: the recipes name the folders data/ and logs/ of the repository; leave both unset" >&2; exit 1
fi

views() { # list, folder of its images, data set, options of make_views
    stage "views of every image of $1"
    "$py" tools/make_views.py --train_txt "$1" --image_dir "$2" --out "data/$3_views" --views 2 "${@:4}"
}
compare() {
    stage "recipes of $1"
    # shellcheck disable=SC2086
    "$py" tools/compare_recipes.py "rrt_scripts/recipes/$1.txt" --out "logs/recipes_$1" --seeds ${SEEDS:-0 1 2} --jobs ${JOBS:-1} ${TEST:+--test $TEST}
}

stage "holding out 12 of the 60 training landmarks of the scenes"
"$py" tools/train_val_split.py data/scenes_train/train.txt data/scenes_fit data/scenes_val --name scenes_val \
    --landmarks 12 --queries 3 --distractors 300 --link_stores
views data/scenes_fit/train.txt data/scenes_train scenes --size 320
"$py" tools/extract.py --model lite0 --image_dir data/scenes_views --list data/scenes_views/train.txt \
    --output data/scenes_views/delg_lite0.h5
for part in fit views; do "$py" tools/prepare_topk_gldv2.py with data_dir="data/scenes_$part" feature_name=lite0; done
"$py" tools/prepare_topk_revisited.py with data_dir=data/scenes_val feature_name=lite0 gnd_name=gnd_scenes_val.pkl
if [ -n "${source:-}" ]; then
    views data/landmarks_train/train.txt "$source" landmarks --size 480
    "$py" delg_extract/extract.py --weights logs/delg_r50/weights.h5 --max_image_size 384 --max_features 500 --precision auto \
        --scales 0.25 0.35355338 0.5 0.70710677 1.0 1.4142135 \
        --image_dir data/landmarks_views --list data/landmarks_views/train.txt --output data/landmarks_views/delg_r50.h5
    "$py" tools/prepare_topk_gldv2.py with data_dir=data/landmarks_views feature_name=r50 whitening=data/landmarks_train/whitening_r50.npz
    compare landmarks
fi
compare scenes
# folds LIST NAME [OPTIONS]: data/NAME_fold_train_* (and the same, _joined with views), data/NAME_fold_val_*
folds() {
    local list=$1 name=$2 fold part
    shift 2
    stage "${FOLDS:-4} folds of $list"
    [ -e "data/${name}_fold_train_0/train.txt" ] || "$py" tools/train_val_split.py "$list" "data/${name}_fold_train" "data/${name}_fold_val" \
        --folds "${FOLDS:-4}" --name fold --distractors 100 --link_stores "$@"
    for fold in $(seq 0 $((${FOLDS:-4} - 1))); do
        for part in "data/${name}_fold_train_$fold" "data/${name}_fold_train_${fold}_joined"; do
            [ ! -e "$part/train.txt" ] || "$py" tools/prepare_topk_gldv2.py with data_dir="$part" feature_name=lite0
        done
        "$py" tools/prepare_topk_revisited.py with data_dir="data/${name}_fold_val_$fold" feature_name=lite0 gnd_name=gnd_fold.pkl
    done
}
compare_by_folds() {
    stage "recipes of $1"
    # shellcheck disable=SC2086
    "$py" tools/compare_recipes.py "rrt_scripts/recipes/$1.txt" --out "logs/recipes_$1" --seeds ${SEEDS:-0 1 2} \
        --jobs ${JOBS:-1} --folds "${FOLDS:-4}"
}
# The six landmarks that are held out for choices are in neither list.
if [ -n "${source:-}" ] && [ -e data/landmarks_train_views/delg_lite0.h5 ]; then
    folds data/landmarks_train/train.txt landmarks --queries 8 --view_list data/landmarks_train_views/train.txt
    compare_by_folds landmarks_folds
fi
if [ -e data/lite0_rerankers/delg_lite0.h5 ]; then
    views data/lite0_rerankers/train.txt data/lite0_rerankers lite0_rerankers --views 1 --size 320
    "$py" tools/extract.py --model lite0 --image_dir data/lite0_rerankers_views --list data/lite0_rerankers_views/train.txt \
        --output data/lite0_rerankers_views/delg_lite0.h5
    folds data/lite0_rerankers/train.txt rerankers --queries 4 --view_list data/lite0_rerankers_views/train.txt --join_views
    compare_by_folds late_folds
    compare_by_folds rrt_folds  # with the LATE of late_folds as a teacher
fi
stage "done; tables in logs/recipes_*/recipes.json, pictures in logs/recipes_*/recipes.png"
