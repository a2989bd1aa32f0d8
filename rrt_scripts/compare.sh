#!/usr/bin/env bash
# Every reranking method on one test set in one run, as tables and pictures (tools/compare.py).
#   bash rrt_scripts/compare.sh scenes|landmarks [SETTINGS of tools/compare.py, as name=value]
# After rrt_scripts/quickstart.sh (scenes) or rrt_scripts/real_photos.sh (landmarks), whose stores and reranker it uses. Learns a whitening
# and visual words on the training images. CHOOSE=DATA (landmarks; the folder real_photos.sh was given) first compares the methods on
# the held-out training landmarks, the mean of five draws of 48 queries: the method to choose is the best one there.
# Writes data/NAME_compare (links, neighbours), data/NAME_train/{codebook,supervised}_*.npz and logs/compare_NAME; DATA=, LOGS= as there.
set -euo pipefail
case ${1:-} in
    -h|--help) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
    scenes) desc=small run=quickstart_scenes ;;
    landmarks) desc=r50 run=rrt_landmarks ;;
    *) echo "error: '${1:-}': expected scenes or landmarks" >&2; exit 1 ;;
esac
name=$1
shift
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
train=$data/${name}_train test=$data/${name}_test here=$data/${name}_compare gnd=gnd_${name}_test.pkl
script=quickstart.sh; [ "$name" = scenes ] || script="real_photos.sh DATA"
for file in "$train/delg_$desc.h5" "$test/delg_$desc.h5" "$logs/$run/best.pt"; do
    [ -e "$file" ] || { echo "error: $file: no such file; make it with: bash rrt_scripts/$script" >&2; exit 1; }
done
stage "whitening and visual words from the training images"
whitening=$train/supervised_$desc.npz codebook=$train/codebook_$desc.npz
# shellcheck disable=SC2046
"$py" tools/learn_whitening.py "$train/delg_$desc.h5" "$whitening" --list "$train/train.txt" --method supervised \
    $([ "$name" = scenes ] && echo --dim 128 || echo --dim 700 --power 0.25 --shrinkage 0.05)
[ -e "$codebook" ] || "$py" tools/train_codebook.py "$train/delg_$desc.h5" "$codebook" --list "$train/train.txt" --size 1024 --sample 100000
common=(dataset."$name" model.RRT dataset.max_sequence_len=100 resume="$logs/$run/best.pt" whitening="$whitening" asmk.codebook="$codebook")
[ ! -e "$logs/$run/fusion.json" ] || common+=(fusion="$logs/$run/fusion.json")
if [ -n "${CHOOSE:-}" ]; then
    methods="['rrt','geometric','aqe','alpha_qe','database_augmentation','diffusion','k_reciprocal','superglobal','asmk',\
'database_augmentation+diffusion','geometric+diffusion+database_augmentation','superglobal+k_reciprocal',\
'database_augmentation+k_reciprocal','k_reciprocal+rrt']"
    for draw in 1 2 3 4 5; do
        stage "all methods on held-out training landmarks, draw $draw of their queries"
        held=$data/${name}_held_out_$draw
        # shellcheck disable=SC2086
        "$py" tools/train_val_split.py "$CHOOSE/train.txt" "$held/train" "$held" --name held_out --query_seed "$draw" \
            ${HELD_OUT:---landmarks 6 --queries 8 --distractors 400}
        ln -sfn "$(cd "$train" && pwd)/delg_$desc.h5" "$held/delg_$desc.h5"
        "$py" tools/prepare_topk_revisited.py with data_dir="$held" feature_name="$desc" gnd_name=gnd_held_out.pkl whitening="$whitening"
        "$py" tools/compare.py -u with temp_dir="$logs/compare_${name}_held_out/$draw" "${common[@]}" methods="$methods" \
            dataset.test_data_dir="$held" dataset.test_gnd_file=gnd_held_out.pkl "$@"
    done
    "$py" tools/choose_method.py "$logs/compare_${name}_held_out"/*/comparison.json --output "$logs/compare_${name}_held_out/choice.md"
fi
stage "neighbours under that whitening"
mkdir -p "$here"
for file in "delg_$desc.h5" test_query.txt test_gallery.txt "$gnd"; do ln -sfn "$(cd "$test" && pwd)/$file" "$here/$file"; done
"$py" tools/prepare_topk_revisited.py with data_dir="$here" feature_name="$desc" gnd_name="$gnd" whitening="$whitening"
stage "all methods"
"$py" tools/compare.py -u with temp_dir="$logs/compare_$name" "${common[@]}" dataset.test_data_dir="$here" "$@"
