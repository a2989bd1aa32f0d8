#!/usr/bin/env bash
# Takes the pictures of README.md and docs/photographs.md anew: the search page and a report, of synthetic scenes, so that no photograph of
# others is shown.
#   bash rrt_scripts/pictures.sh
# Needs Chromium (rrt_scripts/install_browser.sh). Writes docs/pictures/search_*.webp and report.webp, and works below build/pictures.
# Settings by environment: PICTURES (another folder for them).
set -euo pipefail
case ${1:-} in
    -h|--help) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
work=build/pictures
test=$work/scenes_test
stage "drawing scenes"
[ -e "$test/test_query.txt" ] || $py tools/make_scenes.py --out "$work" --num_train_landmarks 2 --views 2 --num_test_landmarks 12 \
    --test_views 6 --queries 2 --num_distractors 20 --distractor_views 1 --size 480
stage "searching, reranking"
$py tools/extract.py --model lite0 --image_dir "$test" --list "$test/test_gallery.txt" --query_list "$test/test_query.txt" \
    --ground_truth "$test/gnd_scenes_test.pkl" --output "$test/delg_lite0.h5"
$py tools/prepare_topk_revisited.py with data_dir="$test" feature_name=lite0 gnd_name=gnd_scenes_test.pkl
$py evaluate_revisited.py -u with temp_dir="$work/maxsim" dataset.scenes dataset.test_data_dir="$test" $matching
$py tools/report.py "$work/maxsim" --image_dir "$test" --out "$work/report"
stage "taking pictures"
exec $py rrt_scripts/take_pictures.py "$work" "$test" "${PICTURES:-docs/pictures}"
