#!/usr/bin/env bash
# Makes .venv when it is missing and installs the pinned requirements and this project into it.
# Says and does nothing when that was already done for these requirements in this folder.
# PYTHON=/path/to/python3.11 chooses the interpreter; pip's own settings (PIP_INDEX_URL, ...) hold.
set -euo pipefail
case ${1:-} in -h|--help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."
stamp=.venv/installed

wanted() {  # the folder belongs to it: an editable installation points there, so a moved clone is installed again
    { pwd; cat requirements.txt pyproject.toml; } | cksum
}
# Removing what is installed there, or pointing it here, would break the clone it belongs to.
if [ -L .venv ] && [ -e "$stamp" ] && [ "$(cat .venv/clone 2>/dev/null)" != "$PWD" ]; then
    echo "error: .venv is a link to the environment of another clone, $(cd .venv && pwd -P); remove the link, or use that one as it is:" \
         "RRT_PYTHON=.venv/bin/python" >&2
    exit 1
fi
is_done() { [ ! -e .venv.installing ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(wanted)" ]; }
if is_done && .venv/bin/python -c '' 2>/dev/null; then
    exit 0
fi

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; }
interpreter=""
for candidate in ${PYTHON:+"$PYTHON"} python3 python3.11 python3.12 python; do
    if fits "$candidate"; then interpreter=$candidate; break; fi
done
if [ -z "$interpreter" ]; then
    found=$("${PYTHON:-python3}" --version 2>/dev/null || echo "not there")
    echo "error: Python 3.11 or 3.12 is needed, ${PYTHON:-python3} is $found; install one, or name it:" \
         "PYTHON=/path/to/python3.11 bash rrt_scripts/install.sh" >&2
    exit 1
fi

if command -v flock >/dev/null; then  # two scripts started together must not install at once
    exec 9>.venv.lock
    flock 9
    if is_done; then exit 0; fi
fi

# A .venv.installing of an earlier run says that it was cut short, and a package that pip takes for whole may not be.
if [ -e .venv.installing ] || ! fits .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    : > .venv.installing
    echo "making .venv with $("$interpreter" --version)"
    if ! "$interpreter" -m venv --clear .venv; then
        echo "error: $interpreter cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2
        exit 1
    fi
fi
: > .venv.installing
rm -f "$stamp"
echo "installing the requirements into .venv (once; some minutes)"
quiet=""; if [ ! -t 1 ]; then quiet=--quiet; fi  # someone at a terminal sees pip's progress
.venv/bin/python -m pip install $quiet --disable-pip-version-check --no-input -r requirements.txt
.venv/bin/python -m pip install $quiet --disable-pip-version-check --no-input --no-deps --no-build-isolation -e .
pwd > .venv/clone
wanted > "$stamp"
rm .venv.installing
