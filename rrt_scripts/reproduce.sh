#!/usr/bin/env bash
# A published row from nothing: images, ground truth, the DELG model and the reranking checkpoint are fetched, then extraction, search,
# reranking, and the figures of the literature beside the measured ones. Run again it goes on where it was.
#   bash rrt_scripts/reproduce.sh r50|r101_gldv1|gldv2 roxf|rpar [SETTINGS of evaluate_revisited.py, as name=value]
#   bash rrt_scripts/reproduce.sh r50_gldv2 roxf
# Settings by environment (relative paths start from the repository):
#   DATA, LOGS, CHECKPOINTS, DELG_MODELS   folders of the data sets (data), results (logs), reranking checkpoints (rrt_gld_ckpts) and
#                                          DELG models (data/models)
#   IMAGES_URL, GND_URL, DELG_URL, CHECKPOINT_URL   addresses of mirrors, above the files
#   DOWNLOAD, EXTRACTION   more options of tools/download_revisited.py and of delg_extract/extract.py
# It takes (docs/reproduce.md): 5 GB of disk, and hours of a processor or a quarter of an hour of a GPU for the extraction.
set -euo pipefail
fail() { echo "error: $1" >&2; exit 1; }
case ${1:-} in
    -h|--help) sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    r50_gldv1|r50_gldv2|r101_gldv1|r101_gldv2) desc=$1 ;;
    *) fail "'${1:-}' are no published descriptors; expected r50_gldv1, r50_gldv2, r101_gldv1 or r101_gldv2" ;;
esac
case ${2:-} in
    roxf) folder=oxford5k set=oxford ;;
    rpar) folder=paris6k set=paris ;;
    *) fail "'${2:-}' is no test set; expected roxf or rpar" ;;
esac
row=$2
shift 2
source "$(dirname "${BASH_SOURCE[0]}")/stages.sh"
export DATA=$data LOGS=$logs CHECKPOINTS=${CHECKPOINTS:-rrt_gld_ckpts} DELG_MODELS=${DELG_MODELS:-$data/models}
[ "$py" = .venv/bin/python ] || export RRT_PYTHON=$py

stage "images and ground truth of $folder"
$py tools/download_revisited.py "$folder" --data_dir "$data" ${IMAGES_URL:+--base_url "$IMAGES_URL"} ${GND_URL:+--gnd_base_url "$GND_URL"} \
    ${DOWNLOAD:-}
stage "the DELG model $desc"
$py delg_extract/download_weights.py "$desc" --output_dir "$DELG_MODELS" ${DELG_URL:+--base_url "$DELG_URL"}
stage "the reranking checkpoint of $desc"
$py tools/published.py fetch "$desc" "$CHECKPOINTS/$desc.pt" ${CHECKPOINT_URL:+--base_url "$CHECKPOINT_URL"}
stage "descriptors"
[ -e "$data/$folder/delg_$desc.h5" ] || bash delg_extract/scripts/extract.sh "$set" "${desc%_*}" "${desc#*_}" ${EXTRACTION:-}
stage "search and reranking"
bash rrt_scripts/eval.sh "${desc%_*}" "${desc#*_}" "$row" rerank "$@"
stage "expected and measured"
exec $py tools/published.py compare "$desc" "$row" "$logs/eval_${desc}_${row}_rerank/results.json"
