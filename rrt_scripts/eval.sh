#!/usr/bin/env bash
# One row of the results: global search, or its reranking, with published descriptors on ROxford5k or RParis6k.
#   bash rrt_scripts/eval.sh r50|r101 gldv1|gldv2 roxf|rpar global|rerank [SETTINGS of evaluate_revisited.py, as name=value]
# Needs the store, and for rerank the checkpoint; what is missing is named with the command that makes it. Missing neighbours are
# computed. Prints the table and the protocol; writes results.json, queries.csv and the record of the run.
# Settings by environment (relative paths start from the repository):
#   DATA         folder of the data sets (data); theirs are oxford5k and paris6k below it
#   LOGS         folder of the results (logs); those of this row lie in eval_<descriptors>_<set>_<method> below it
#   CHECKPOINTS  folder of the reranking checkpoints (rrt_gld_ckpts); theirs are <descriptors>.pt; resume=FILE names another
set -euo pipefail
fail() { echo "error: $1" >&2; exit 1; }
case ${1:-} in
    -h|--help) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
desc=${1:-}_${2:-}
case $desc in
    r50_gldv1|r50_gldv2|r101_gldv1|r101_gldv2) ;;
    *) fail "'${1:-} ${2:-}' are no published descriptors; expected r50 or r101, then gldv1 or gldv2" ;;
esac
case ${3:-} in
    roxf) dataset=roxford folder=oxford5k gnd=gnd_roxford5k.pkl set=oxford ;;
    rpar) dataset=rparis folder=paris6k gnd=gnd_rparis6k.pkl set=paris ;;
    *) fail "'${3:-}' is no test set; expected roxf or rpar" ;;
esac
case ${4:-} in
    global|rerank) ;;
    *) fail "'${4:-}' is no method; expected global or rerank" ;;
esac
name=eval_${desc}_$3_$4 method=$4
shift 4
for argument in "$@"; do
    case $argument in
        -h|--help) exec bash "${BASH_SOURCE[0]}" --help ;;
    esac
done
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"

folder=$data/$folder
if [ "$method" = rerank ]; then
    checkpoint=${CHECKPOINTS:-rrt_gld_ckpts}/$desc.pt
    case " $*" in
        *" resume="*) ;;  # the user's own
        *) [ -e "$checkpoint" ] || fail "$checkpoint: no such checkpoint; copy the published one there, or train one with: \
bash rrt_scripts/train_$desc.sh, and give resume=$logs/train_$desc/best.pt"
           set -- resume="$checkpoint" "$@" ;;
    esac
fi
store=$folder/delg_$desc.h5
[ -e "$store" ] || fail "$store: no such store; make it with: bash delg_extract/scripts/extract_${set}_$desc.sh, or from published feature \
files with: $py tools/import_delg.py with data_dir=$folder feature_name=$desc"
[ -e "$folder/nn_inds_$desc.pkl" ] ||
    "$py" tools/prepare_topk_revisited.py with data_dir="$folder" feature_name="$desc" gnd_name="$gnd"
exec "$py" evaluate_revisited.py with temp_dir="$logs/$name" dataset."${dataset}_$desc" model.RRT dataset.test_data_dir="$folder" "$@"
