#!/usr/bin/env bash
# ROxford5k and RParis6k with the million distractors of R1M, from descriptors to the table: global search and, with a checkpoint, its reranking.
#   bash rrt_scripts/eval_1m.sh r50|r101 gldv1|gldv2 [SETTINGS of evaluate_revisited.py, as name=value]
# Needs the stores of both sets and of R1M (a file or a folder of parts); what is missing is named with the command that makes it. The same
# command after a kill goes on where it was: sets that were measured are left as they are. Other settings want another LOGS.
# Settings by environment (relative paths start from the repository):
#   DATA         folder of the data sets (data); theirs are oxford5k, paris6k and revisitop1m below it
#   LOGS         folder of the results (logs); these lie in eval_1m_<descriptors> below it, table.md among them
#   CHECKPOINTS  folder of the reranking checkpoints (rrt_gld_ckpts); without <descriptors>.pt there global search is measured alone
set -euo pipefail
fail() { echo "error: $1" >&2; exit 1; }
case ${1:-} in
    -h|--help) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
backbone=${1:-} version=${2:-} desc=${1:-}_${2:-}
case $desc in
    r50_gldv1|r50_gldv2|r101_gldv1|r101_gldv2) ;;
    *) fail "'$backbone $version' are no published descriptors; expected r50 or r101, then gldv1 or gldv2" ;;
esac
shift 2
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"

million=$data/revisitop1m/delg_$desc.h5 log=$logs/eval_1m_$desc method=global
[ -e "$million" ] || fail "$million: no such store, nor a folder of its parts; make it of an image list with: $py delg_extract/extract.py \
--keep_parts --output $million, or from published feature files with: $py tools/import_delg.py with data_dir=$data/revisitop1m feature_name=$desc"
[ ! -e "${CHECKPOINTS:-rrt_gld_ckpts}/$desc.pt" ] || method=rerank
case " $*" in *" resume="*) method=rerank ;; esac
mkdir -p "$log"
made="$method $*"
[ ! -e "$log/settings.txt" ] || [ "$(cat "$log/settings.txt")" = "$made" ] ||
    fail "$log/settings.txt: what is there was measured with '$(cat "$log/settings.txt")', this run has '$made'; give another LOGS, or delete the folder"
echo "$made" > "$log/settings.txt"
for set in roxf rpar; do
    if [ -e "$log/$set/results.json" ]; then
        stage "$set with R1M: measured before"
    else
        stage "$set with R1M"
        # results.json is written when everything is measured.
        bash rrt_scripts/eval.sh "$backbone" "$version" "$set" "$method" temp_dir="$log/$set" distractors="$million" "$@"
    fi
done
stage "table"
"$py" tools/published.py table "$log/roxf/results.json" "$log/rpar/results.json" --output "$log/table.md"
