#!/usr/bin/env bash
# Trains a reranking transformer on descriptors of Google Landmarks v2 with the published settings and measures it on ROxford5k and RParis6k.
#   bash rrt_scripts/train.sh r50|r101 gldv1|gldv2 [SETTINGS of experiment.py, as name=value]
# Needs the store and the training list; what is missing is named with the command that makes it. Landmarks are held out for choosing the
# best epoch (select_on=test: the published way, which chooses on ROxford5k and trains on all landmarks), neighbours are computed where they
# are missing. ROxford5k and RParis6k are measured after every epoch for the log, and at the end, where their stores are there. The same
# command after a kill goes on where it was.
# Settings by environment (relative paths start from the repository):
#   DATA      folder of the data sets (data); training is gldv2 below it, its two parts gldv2_train and gldv2_val, tests oxford5k, paris6k
#   LOGS      folder of the results (logs); checkpoints lie in train_<descriptors> below it, best.pt is the chosen one
#   NPROC     processes, one for each GPU (1)
#   HELD_OUT  options of tools/train_val_split.py (--landmarks 200 --queries 2 --distractors 5000)
set -euo pipefail
fail() { echo "error: $1" >&2; exit 1; }
case ${1:-} in
    -h|--help) sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
desc=${1:-}_${2:-}
case $desc in
    r50_gldv1|r50_gldv2|r101_gldv1|r101_gldv2) ;;
    *) fail "'${1:-} ${2:-}' are no published descriptors; expected r50 or r101, then gldv1 or gldv2" ;;
esac
backbone=$1 version=$2
shift 2
choice=val shared=()
for argument in "$@"; do
    case $argument in
        -h|--help) exec bash "${BASH_SOURCE[0]}" --help ;;
        select_on=*) choice=${argument#select_on=} ;;
        cpu=*|dataset.max_sequence_len=*) shared+=("$argument") ;;  # the evaluation's, too
    esac
done
case ${NPROC:-1} in
    *[!0-9]*|0*) fail "NPROC=$NPROC: expected a number of processes of at least 1" ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"

whole=$data/gldv2 part=$data/gldv2_train val=$data/gldv2_val log=$logs/train_$desc
store=$whole/delg_$desc.h5
[ -e "$store" ] || fail "$store: no such store; make it with: bash delg_extract/scripts/extract_gldv2_$desc.sh, or from published feature \
files with: $py tools/import_delg.py with data_dir=$whole feature_name=$desc"
[ -e "$whole/train.txt" ] || fail "$whole/train.txt: no such list; make it with: $py tools/prepare_data.py gldv2_train $whole \
$whole/train/train_clean.csv $whole/train.txt --min_pictures 4 --max_pictures 100"

if [ "$choice" = test ]; then
    part=$whole
    [ -e "$data/oxford5k/delg_$desc.h5" ] || fail "$data/oxford5k/delg_$desc.h5: no such store, on which select_on=test chooses; make it with: \
bash delg_extract/scripts/extract_oxford_$desc.sh"
else
    if [ ! -e "$val/gnd_gldv2_val.pkl" ]; then
        stage "holding out landmarks for choosing the best epoch"
        # shellcheck disable=SC2086
        "$py" tools/train_val_split.py "$whole/train.txt" "$part" "$val" --name gldv2_val \
            ${HELD_OUT:---landmarks 200 --queries 2 --distractors 5000}
    fi
    for folder in "$part" "$val"; do
        [ -e "$folder/delg_$desc.h5" ] || ln -sfn "$(cd "$whole" && pwd)/delg_$desc.h5" "$folder/delg_$desc.h5"
    done
fi
stage "finding neighbours"
[ -e "$part/nn_inds_$desc.pkl" ] || "$py" tools/prepare_topk_gldv2.py with data_dir="$part" feature_name="$desc"
search() { [ -e "$1/nn_inds_$desc.pkl" ] || "$py" tools/prepare_topk_revisited.py with data_dir="$1" feature_name="$desc" gnd_name="$2"; }
[ "$choice" = test ] || search "$val" gnd_gldv2_val.pkl
watched=() measured=()
for set in oxford5k:gnd_roxford5k.pkl:roxf paris6k:gnd_rparis6k.pkl:rpar; do
    IFS=: read -r folder gnd name <<< "$set"
    if [ -e "$data/$folder/delg_$desc.h5" ]; then
        search "$data/$folder" "$gnd"
        measured+=("$name")
        # What chooses the epoch is measured anyway.
        [ "$choice:$name" = test:roxf ] || watched+=("$data/$folder/$gnd")
    else
        echo "$data/$folder/delg_$desc.h5: no such store, so that this set is not measured (bash delg_extract/scripts/extract_${folder%%[56]*}_$desc.sh)"
    fi
done
watch=; [ "${#watched[@]}" = 0 ] || watch=watch_test=$(IFS=,; echo "${watched[*]}")

stage "training the reranking transformer"
launch=("$py")
[ "${NPROC:-1}" = 1 ] || launch=("$py" -m torch.distributed.run --standalone --nproc_per_node "$NPROC")
"${launch[@]}" experiment.py -F "$log" with temp_dir="$log" dataset.gldv2_roxford_"$desc" model.RRT resume=auto \
    dataset.train_data_dir="$whole" dataset.test_data_dir="$data/oxford5k" ${watch:+"$watch"} "$@"

stage "measuring the chosen epoch"
for name in ${measured[@]+"${measured[@]}"}; do
    bash rrt_scripts/eval.sh "$backbone" "$version" "$name" rerank resume="$log/best.pt" temp_dir="$log/$name" ${shared[@]+"${shared[@]}"}
done
stage "done; checkpoints and results in $log"
