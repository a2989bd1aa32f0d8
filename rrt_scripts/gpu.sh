#!/usr/bin/env bash
# Runs every test that needs a GPU and measures every row of docs/speed.md that is of a GPU, in at most eight minutes, and writes gpu.json and
# gpu.md (a table) into a folder. What a machine lacks is named in its row; without a GPU it says so and ends with 0.
#   bash rrt_scripts/gpu.sh [FOLDER, logs/gpu] [--small]
# --small: tiny sizes on the processor, to see that the script works; the figures mean nothing.
# A fresh machine needs PyTorch; packages that it lacks may be brought in a folder, filled by
#   pip install --target gpu_packages --no-deps pydantic pydantic_core typing_inspection annotated_types tqdm psutil safetensors h5py filelock
# Settings by environment: RRT_PYTHON (.venv/bin/python where it is there, else python3), PACKAGES (gpu_packages), SECONDS_IN_ALL (460)
set -euo pipefail
case ${1:-} in
    -h|--help) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
py=${RRT_PYTHON:-.venv/bin/python}
[ -x "$py" ] || [ -n "${RRT_PYTHON:-}" ] || py=python3
export PYTHONPATH=${PACKAGES:-gpu_packages}:$PWD${PYTHONPATH:+:$PYTHONPATH}
exec "$py" rrt_scripts/gpu_rows.py "$@"
