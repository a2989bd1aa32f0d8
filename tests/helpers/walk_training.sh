#!/usr/bin/env bash
# The whole way of training on a small mirror of GLDv2: mirror, download, build, train, kill, resume, export four kinds, extract, match.
#   bash tests/helpers/walk_training.sh FOLDER    (an empty folder; RRT_PYTHON= chooses the Python)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
mkdir -p "$1"; work=$(cd "$1" && pwd); cd "$root"
export RRT_PYTHON=${RRT_PYTHON:-.venv/bin/python} DATA=$work/data LOGS=$work/logs IMAGENET=none TARS="2 1 1" PYTHONPATH=$root
log=$LOGS/delg_small_gldv2_clean records=$DATA/gldv2/tfrecord

echo "== a mirror on this machine"
"$RRT_PYTHON" tests/helpers/gldv2_mirror.py "$work/mirror" --classes 4 --pictures 10
"$RRT_PYTHON" -u -m http.server 0 --bind 127.0.0.1 --directory "$work/mirror" > "$work/server.txt" 2> /dev/null &
server=$!; trap 'kill $server' EXIT
until grep -q port "$work/server.txt"; do sleep 0.1; done
BASE_URL=http://127.0.0.1:$(sed 's/.* port \([0-9]*\).*/\1/' "$work/server.txt"); export BASE_URL
export BUILD_FLAGS="--num_shards 2"
train=(bash delg_extract/scripts/train.sh delg small --image_size 97 --batch_size 8 --max_iters 12 --save_interval 2 --report_interval 2
       --eval_interval 6 --eval_images 8)

echo "== killed while training"
setsid "${train[@]}" > "$work/killed.txt" 2>&1 &
until [ -e "$log/checkpoints/checkpoint" ]; do sleep 0.05; kill -0 $! || { cat "$work/killed.txt"; exit 1; }; done
kill -9 -- -$!
[ ! -e "$log/weights.h5" ]

echo "== the same command goes on: every stage is there already, and training continues"
"${train[@]}" | tee "$work/resumed.txt"
grep -q "continues at step" "$work/resumed.txt"
for kind in local global local_and_global kaggle; do [ -e "$log/$kind/saved_model.pb" ]; done

echo "== descriptors by the exported model"
find "$DATA/gldv2/index" -name '*.jpg' | sort | head -4 > "$work/pictures.txt"
mkdir "$work/mine"; xargs -a "$work/pictures.txt" cp -t "$work/mine"
(cd "$work/mine" && ls ./*.jpg | cut -c3-) | sed 's/$/,0,1,1/' > "$work/mine/list.txt"
"$RRT_PYTHON" delg_extract/extract.py --model "$log/local_and_global" --image_dir "$work/mine" --list "$work/mine/list.txt" \
    --output "$work/mine/delg_small.h5" --max_features 200 --num_workers 1
"$RRT_PYTHON" tools/check_store.py "$work/mine/delg_small.h5"

echo "== matches of two images"
mapfile -t two < <(ls "$work"/mine/*.jpg | head -2)
"$RRT_PYTHON" delg_extract/match_images.py "${two[0]}" "${two[1]}" --model "$log/local" --output "$work/match.png"
[ -s "$work/match.png" ]
echo "walked the whole way in $SECONDS s"
