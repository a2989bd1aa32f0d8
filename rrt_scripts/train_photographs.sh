#!/usr/bin/env bash
# The reranker on photographs that nobody has labelled: made views of each, and what a teacher says of pairs (docs/training.md).
#   bash rrt_scripts/train_photographs.sh PHOTOS [SETTINGS of experiment.py, as name=value]
# PHOTOS is a folder, of which all images below it are taken, or a text file with a path a line. There is no ground truth to measure
# against; rrt_scripts/train_landmarks.sh is for photographs with labels. Writes below data/ and logs/; goes on where it was.
# Settings by environment (relative paths start from the repository):
#   DATA, LOGS  folders of the data sets (data) and of the results (logs); NAME_photographs, NAME_views and rrt_NAME below them
#   TRAINING    settings of experiment.py instead of those in rrt_scripts/recipes/photographs.txt
#   VIEWS       options of tools/make_views.py (--views 2 --size 480; when empty: none are made)
set -euo pipefail
fail() { echo "error: $1" >&2; exit 1; }
case ${1:-} in
    -h|--help|"") sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; [ -n "${1:-}" ]; exit ;;
esac
[ -e "$1" ] || fail "$1: no such folder or list; give a folder of photographs, or a text file with a path a line"
source=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
source=$(cd "$source" 2>/dev/null && pwd || echo "$source")
shift
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
images=$source name=$(basename "$source")
[ -d "$source" ] || { images=$(dirname "$source"); name=${name%.*}; }
name=$(echo "$name" | tr -c 'A-Za-z0-9\n' '_')
photographs=$data/${name}_photographs views=$data/${name}_views log=$logs/rrt_$name

describe() { # folder of images, folder of their list all.txt: its descriptors, and train.txt without images that have none
    "$py" tools/extract.py --model lite0 --image_dir "$1" --list "$2/all.txt" --output "$2/delg_lite0.h5" --allow_missing
    "$py" tools/prepare_data.py described "$2/all.txt" "$2/delg_lite0.h5" "$2/train.txt"
}
stage "listing the photographs"
"$py" tools/prepare_data.py photographs "$source" "$photographs/all.txt" --allow_missing
stage "describing them"
describe "$images" "$photographs"
taught=(distil.teacher=checkpoint:rrt_gld_ckpts/late_lite0.safetensors)
if [ -n "${VIEWS=--views 2 --size 480}" ]; then
    stage "views of every photograph"
    # shellcheck disable=SC2086
    "$py" tools/make_views.py --train_txt "$photographs/train.txt" --image_dir "$images" --out "$views" --allow_missing $VIEWS
    cp "$views/train.txt" "$views/all.txt"
    describe "$views" "$views"
    taught+=(distil.view_lists="$views/train.txt")
fi
stage "learning from a teacher"
# shellcheck disable=SC2046,SC2086
"$py" experiment.py -F "$log" with temp_dir="$log" dataset.landmarks model.RRT dataset.name="$name" dataset.desc_name=lite0 \
    dataset.train_data_dir="$photographs" dataset.val_data_dir=None dataset.max_sequence_len=100 model.num_global_features=512 \
    resume=auto "${taught[@]}" ${TRAINING:-$(sed 's/#.*//' rrt_scripts/recipes/photographs.txt)} "$@"
stage "done; the transformer is $log/best.pt"
