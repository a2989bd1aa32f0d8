#!/usr/bin/env bash
# Installs what is missing and runs the tests; arguments go to pytest, e.g. bash rrt_scripts/test.sh -m "not slow"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash rrt_scripts/install.sh
bash rrt_scripts/install_browser.sh
# Two workers, a file at a time each, in the order of tests/conftest.py. -n 0 runs everything in one process.
exec .venv/bin/python -m pytest -q -ra -n 2 --dist loadfile --no-loadscope-reorder "$@"
