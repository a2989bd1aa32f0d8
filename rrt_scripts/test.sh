#!/usr/bin/env bash
# Installs what is missing, checks form, types and the order of imports, and runs the tests; arguments go to pytest, e.g.
# bash rrt_scripts/test.sh -m "not slow"
set -euo pipefail
case ${1:-} in -h|--help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash rrt_scripts/install_browser.sh &
# Compiling every file of the packages would be two fifths of their installation, and few are imported.
PIP_COMPILE=0 bash rrt_scripts/install.sh || { wait; exit 1; }
wait
unset PYTHONDONTWRITEBYTECODE  # or each of some hundred processes would compile what they import again
.venv/bin/ruff check .
.venv/bin/ruff format --check .

# The order of imports and the types are checked beside the tests, which spend a sixth of their time waiting.
said=$(mktemp); trap 'rm -f "$said"' EXIT
{ .venv/bin/lint-imports --no-logo && .venv/bin/pyright; } >"$said" 2>&1 &
checks=$! status=0
# Two workers, a file at a time each, as tests/helpers/sharing.py shares the whole suite. -n 0 runs all in one process.
# One that dies ends the run: pytest-xdist, which would start another, then waits for ever for the last tests. An hour is
# the end of whatever else hangs.
limit=""; if command -v timeout >/dev/null; then limit="timeout --foreground --kill-after=30 3600"; fi
$limit .venv/bin/python -m pytest -q -ra -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0 "$@" || status=$?
wait "$checks" || status=1
cat "$said"
exit "$status"
