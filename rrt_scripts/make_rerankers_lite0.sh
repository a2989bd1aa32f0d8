#!/usr/bin/env bash
# The shipped rerankers of lite0 descriptors, from training photographs: rrt_gld_ckpts/rrt_lite0.pt, and the fusions of both.
#   bash rrt_scripts/make_rerankers_lite0.sh DATA [DATA ...]
# Each DATA holds train.txt and its images; of the first the six landmarks that rrt_scripts/landmarks.sh holds out are left out: on them the
# best epoch, the fusion and the probabilities are chosen. Synthetic scenes are trained on, too. LATE learns from labels, RRT from LATE.
# rrt_gld_ckpts/late_lite0.safetensors is what rrt_scripts/make_lite0.sh has trained by this script (STAGES=late) on the way to the model: trained
# on its finished descriptors LATE has less to learn, and is worse (docs/models.md 6). Goes on where it was. Settings by environment:
#   DATA, LOGS   folders of the data (data) and of the trainings (logs)
#   OUTPUT       folder of the checkpoints (rrt_gld_ckpts)
#   MODEL        the model of descriptors (lite0)
#   SEED         of both trainings (0); the results of other seeds stay in LOGS
#   STAGES       rrt (default), or late
set -euo pipefail
case ${1:-} in
    -h|--help|"") sed -n '2,13s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; [ -n "${1:-}" ]; exit ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/collections.sh"
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
output=${OUTPUT:-rrt_gld_ckpts} seed=${SEED:-0} train=$data/lite0_rerankers val=$data/landmarks_val
mkdir -p "$output" "$train"

stage "holding out landmarks for choices; drawing the scenes; joining the lists"
"$py" tools/train_val_split.py "${collections[0]}/train.txt" "$data/landmarks_train" "$val" --name landmarks_val \
    ${HELD_OUT:---landmarks 6 --queries 8 --distractors 400}
[ -e "$data/scenes_train/train.txt" ] || "$py" tools/make_scenes.py --out "$data"
scenes=$(cd "$data/scenes_train" && pwd)
# Folders are told apart by a number, and so are their labels.
number=0
joined=$train/train.txt.new
: > "$joined"
for folder in "${collections[@]}" "$scenes"; do
    list=$folder/train.txt
    [ "$number" -gt 0 ] || list=$data/landmarks_train/train.txt
    ln -sfn "$folder" "$train/$number"
    awk -F, -v OFS=, -v folder="$number" '{ $1 = folder "/" $1; $2 += 100000 * folder; print }' "$list" >> "$joined"
    number=$((number + 1))
done
if cmp -s "$joined" "$train/train.txt"; then rm "$joined"; else mv "$joined" "$train/train.txt"; fi

stage "extracting descriptors"
"$py" tools/extract.py --model "${MODEL:-lite0}" --image_dir "$train" --list "$train/train.txt" --output "$train/delg_lite0.h5"
"$py" tools/extract.py --model "${MODEL:-lite0}" --image_dir "${collections[0]}" --list "$val/test_query.txt" --list "$val/test_gallery.txt" --output "$val/delg_lite0.h5"
stage "neighbours"
"$py" tools/prepare_topk_gldv2.py with data_dir="$train" feature_name=lite0
"$py" tools/prepare_topk_revisited.py with data_dir="$val" feature_name=lite0 gnd_name=gnd_landmarks_val.pkl

settings() { sed 's/#.*//' "rrt_scripts/recipes/$1_lite0.txt"; }
common=(dataset.landmarks dataset.desc_name=lite0 dataset.train_data_dir="$train" dataset.val_data_dir="$val"
        dataset.test_data_dir="$val" dataset.test_gnd_file=gnd_landmarks_val.pkl model.num_global_features=512)
# make NAME MODEL FILE [SETTINGS]: trains, and writes the checkpoint without what only a training needs.
make() {
    local name=$1 model=$2 file=$output/$3 log=$logs/$1_lite0/seed_$seed
    shift 3
    stage "training $name"
    # shellcheck disable=SC2046
    "$py" experiment.py with temp_dir="$log" resume=auto "${common[@]}" "$model" seed="$seed" $(settings "$name") "$@"
    "$py" tools/strip_checkpoint.py --half --overwrite "$log/best.pt" "$file"
}
fuse() {  # NAME MODEL FILE LOCAL: chooses the fusion for that many descriptors of an image
    stage "the fusion of $1"
    "$py" tools/tune_fusion.py with temp_dir="$logs/$1_lite0/fusion" "${common[@]}" "$2" resume="$output/$3" dataset.max_sequence_len="$4" baselines=True
    cp "$logs/$1_lite0/fusion/fusion.json" "$output/${1}_lite0.fusion.json"
}
if [ "${STAGES:-rrt}" = late ]; then
    make late model.LATE late_lite0.safetensors
else
    make rrt model.RRT rrt_lite0.pt distil.teacher="checkpoint:$output/late_lite0.safetensors"
    fuse rrt model.RRT rrt_lite0.pt 100
    fuse late model.LATE late_lite0.safetensors 200
fi
stage "done; checkpoints in $output"
