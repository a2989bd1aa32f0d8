# What the pipeline scripts share, sourced after their arguments are read: installs what is missing, then
# $py (RRT_PYTHON= chooses another Python and installs nothing), $data and $logs (DATA=, LOGS=), stage "text" (a heading with the time),
# $matching: the settings of plain matching, which every table has as what the transformer is to beat (docs/models.md 5).
cd "$(dirname "${BASH_SOURCE[0]}")/.."
py=${RRT_PYTHON:-.venv/bin/python}
[ -n "${RRT_PYTHON:-}" ] || bash rrt_scripts/install.sh
data=${DATA:-data} logs=${LOGS:-logs}
began=$SECONDS
stage() { echo; echo "== $1 ($((SECONDS - began)) s)"; }
matching="reranker=maxsim maxsim.weight=0.2 maxsim.symmetric=True maxsim.query_local=100 maxsim.gallery_local=100"
