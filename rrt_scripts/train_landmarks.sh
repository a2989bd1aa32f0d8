#!/usr/bin/env bash
# The reranker on photographs of your own: descriptors, whitening, training, fusion, and the measure on test landmarks.
#   bash rrt_scripts/train_landmarks.sh DATA [SETTINGS of experiment.py, as name=value]
# DATA holds train.txt, test_query.txt, test_gallery.txt, gnd_landmarks.pkl and their images. Every setting is chosen on held-out training
# landmarks (landmarks_val), the test landmarks are measured once, at the end. Writes below data/ and logs/; goes on where it was.
# Photographs without labels, a folder that holds none of these files but train.txt, or a list of paths, go to train_photographs.sh.
# Settings by environment (relative paths start from the repository):
#   DATA, LOGS  folders of the data sets (data) and of the results (logs); those of this script are landmarks_* and rrt_landmarks below them
#   BACKBONE    lite0, the shipped model (default); any other name: of the descriptors that a DELG weight file gives, as r50
#   WEIGHTS     that DELG weight file, of delg_extract/train.py; not needed where the stores are there
#   TRAINING    settings of experiment.py instead of those in rrt_scripts/recipes/real_photos.txt
#   VIEWS       options of tools/make_views.py for the training photographs (--views 2 --size 480; when empty: none are made)
#   HELD_OUT    options of tools/train_val_split.py (--landmarks 6 --queries 8 --distractors 400)
#   WHITENING   options of tools/learn_whitening.py (--dim 700 --power 0.1; with lite0, or when empty: none is learned)
set -euo pipefail
fail() { echo "error: $1" >&2; exit 1; }
case ${1:-} in
    -h|--help|"") sed -n '2,14s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; [ -n "${1:-}" ]; exit ;;
esac
if [ -f "$1" ]; then exec bash "$(dirname "${BASH_SOURCE[0]}")/train_photographs.sh" "$@"; fi
if [ -d "$1" ] && ! [ -e "$1/test_query.txt" ] && ! [ -e "$1/test_gallery.txt" ] && ! [ -e "$1/gnd_landmarks.pkl" ]; then
    listed=$1
    [ ! -e "$1/train.txt" ] || listed=$1/train.txt
    exec bash "$(dirname "${BASH_SOURCE[0]}")/train_photographs.sh" "$listed" "${@:2}"
fi
source=$(cd "$1" 2>/dev/null && pwd) || fail "$1: no such folder; give the folder that holds train.txt and test_query.txt"
shift
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
if [ "${BACKBONE:-lite0}" != lite0 ]; then
    again="BACKBONE=r50 bash rrt_scripts/real_photos.sh $source"
    if [ -n "${WEIGHTS:-}" ]; then
        [ -e "$WEIGHTS" ] || fail "$WEIGHTS: no such weight file; train one with: $again"
    else
        for part in train test; do
            store=$data/landmarks_$part/delg_$BACKBONE.h5
            [ -e "$store" ] || fail "$store: no such store; give a DELG weight file by WEIGHTS=, or make both with: $again"
        done
    fi
elif [ -n "${WEIGHTS:-}" ]; then
    fail "WEIGHTS=$WEIGHTS: a DELG weight file makes no lite0 descriptors; name its own by BACKBONE=, as r50"
fi
source rrt_scripts/landmarks.sh

if [ "$backbone" = lite0 ]; then
    extract() { "$py" tools/extract.py --model lite0 "$@"; }
else
    extract() {
        "$py" delg_extract/extract.py --weights "$WEIGHTS" --max_image_size 384 --max_features 500 \
            --scales 0.25 0.35355338 0.5 0.70710677 1.0 1.4142135 "$@"
    }
fi
# The shipped LATE knows which of lite0's descriptors to believe; for others there is plain matching.
teacher=0.6*maxsim+0.4*global
[ "$backbone" != lite0 ] || teacher=checkpoint:rrt_gld_ckpts/late_lite0.safetensors
taught=(distil.teacher="$teacher")
if [ "$backbone" = lite0 ] || [ -n "${WEIGHTS:-}" ]; then
    if [ -n "${VIEWS=--views 2 --size 480}" ]; then
        stage "views of every training photograph"
        # shellcheck disable=SC2086
        "$py" tools/make_views.py --train_txt "$train/train.txt" --image_dir "$source" --out "$views" $VIEWS
        taught+=(distil.view_lists="$views/train.txt")
    fi
    stage "extracting descriptors"
    extract --image_dir "$source" --list "$val/test_query.txt" --list "$val/test_gallery.txt" --list "$train/train.txt" --output "$train/delg_$backbone.h5"
    [ -z "$VIEWS" ] || extract --image_dir "$views" --list "$views/train.txt" --output "$views/delg_$backbone.h5"
    extract --image_dir "$source" --list "$test/test_gallery.txt" --query_list "$test/test_query.txt" --ground_truth "$test/gnd_landmarks_test.pkl" \
        --output "$test/delg_$backbone.h5"
fi
ln -sfn "$(cd "$train" && pwd)/delg_$backbone.h5" "$val/delg_$backbone.h5"

if [ -n "${WHITENING:-}" ]; then
    stage "whitening learned on the training photographs"
    # shellcheck disable=SC2086
    "$py" tools/learn_whitening.py "$train/delg_$backbone.h5" "$whitening" --list "$train/train.txt" $WHITENING
fi
stage "neighbours"
"$py" tools/prepare_topk_gldv2.py with data_dir="$train" feature_name="$backbone" "${whitened[@]}"
for part in val test; do
    "$py" tools/prepare_topk_revisited.py with data_dir="$data/landmarks_$part" feature_name="$backbone" \
        gnd_name="gnd_landmarks_$part.pkl" "${whitened[@]}"
done

common=(dataset.landmarks model.RRT dataset.desc_name="$backbone" dataset.max_sequence_len=100
        dataset.train_data_dir="$train" dataset.val_data_dir="$val" dataset.test_data_dir="$test")
[ "$backbone" != lite0 ] || common+=(model.num_global_features=512)
stage "training the reranking transformer"
# shellcheck disable=SC2046,SC2086
"$py" experiment.py -F "$log" with temp_dir="$log" "${common[@]}" resume=auto \
    "${taught[@]}" ${TRAINING:-$(sed 's/#.*//' rrt_scripts/recipes/real_photos.txt)} "$@"
stage "choosing the fusion with global similarity on the validation landmarks"
"$py" tools/tune_fusion.py with temp_dir="$log" "${common[@]}" resume="$log/best.pt" "${whitened[@]}"
stage "measuring the test landmarks: plain matching, RRT alone, and fused"
# shellcheck disable=SC2086
"$py" evaluate_revisited.py with temp_dir="$log/maxsim" "${common[@]}" "${whitened[@]}" $matching
"$py" evaluate_revisited.py with temp_dir="$log/alone" "${common[@]}" resume="$log/best.pt" "${whitened[@]}"
"$py" evaluate_revisited.py -F "$log" with temp_dir="$log" "${common[@]}" resume="$log/best.pt" "${whitened[@]}" \
    fusion="$log/fusion.json"
stage "done; results in $log"
