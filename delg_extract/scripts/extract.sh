#!/usr/bin/env bash
# DELG descriptors of a data set by a published model -> its store, where the configurations dataset.*_<backbone>_<version> look for it.
#   bash delg_extract/scripts/extract.sh oxford|paris|gldv2 r50|r101 gldv1|gldv2 [OPTIONS of delg_extract/extract.py]
# Settings by environment (relative paths start from the repository):
#   DATA         folder of the data sets (data); theirs are oxford5k, paris6k and gldv2 below it
#   DELG_MODELS  folder of the published models (data/models)
#   WEIGHTS      another model: a weight file of delg_extract/train.py or a SavedModel folder. Then no preset is named, for its
#                attention threshold belongs to the published model; --preset NAME as an option names it all the same
#   IMAGE_DIR, LIST, QUERY_LIST, GROUND_TRUTH, OUTPUT   as the options of those names; by default the files below DATA
set -euo pipefail
fail() { echo "error: $1" >&2; exit 1; }
case " $* " in *" -h "*|*" --help "*) set -- --help ;; esac  # also behind what extract_*.sh say
case ${1:-} in
    -h|--help) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    oxford) folder=oxford5k gnd=gnd_roxford5k.pkl ;;
    paris) folder=paris6k gnd=gnd_rparis6k.pkl ;;
    gldv2) folder=gldv2 gnd="" ;;
    *) fail "'${1:-}' is no data set; expected oxford, paris or gldv2" ;;
esac
preset=${2:-}_${3:-}
case $preset in
    r50_gldv1) model=r50delg_gld_20200814 ;;
    r101_gldv1) model=r101delg_gld_20200814 ;;
    r50_gldv2) model=r50delg_gldv2clean_20200914 ;;
    r101_gldv2) model=r101delg_gldv2clean_20200914 ;;
    *) fail "'${2:-} ${3:-}' is no published model; expected r50 or r101, then gldv1 or gldv2" ;;
esac
shift 3
source "$(dirname "${BASH_SOURCE[0]}")/../../rrt_scripts/stages.sh"

if [ -n "${WEIGHTS:-}" ]; then
    set -- --model "$WEIGHTS" "$@"
else
    model=${DELG_MODELS:-data/models}/$model
    [ -e "$model/saved_model.pb" ] || fail "$model: no such model; fetch it with: $py delg_extract/download_weights.py $preset"
    set -- --model "$model" --preset "$preset" "$@"
fi

folder=$data/$folder
if [ -n "$gnd" ]; then
    list=${LIST:-$folder/test_gallery.txt} remedy="bash delg_extract/scripts/download_revisited.sh ${folder##*/}"
    # Queries are cropped to their box in the ground truth; gallery and queries share a store.
    set -- --query_list "${QUERY_LIST:-$folder/test_query.txt}" --ground_truth "${GROUND_TRUTH:-$folder/$gnd}" "$@"
else
    list=${LIST:-$folder/train.txt} remedy="$py tools/prepare_data.py gldv2_train; see its --help"
fi
[ -e "$list" ] || fail "$list: no such list; make it with: $remedy"
exec "$py" delg_extract/extract.py --image_dir "${IMAGE_DIR:-$folder}" --list "$list" --output "${OUTPUT:-$folder/delg_$preset.h5}" "$@"
