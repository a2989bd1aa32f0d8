#!/usr/bin/env bash
# Makes .venv when it is missing and installs the pinned requirements and this project into it.
# Says and does nothing when that was already done for these requirements in this folder.
# PYTHON=/path/to/python3.11 chooses the interpreter; pip's own settings (PIP_INDEX_URL, PIP_FIND_LINKS, ...) are respected.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
stamp=.venv/installed

wanted() {  # the folder belongs to it: an editable installation points there, so a moved clone is installed again
    { pwd; cat requirements.txt pyproject.toml; } | cksum
}
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(wanted)" ] && .venv/bin/python -c '' 2>/dev/null; then
    exit 0
fi

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; }
interpreter=""
for candidate in ${PYTHON:+"$PYTHON"} python3 python3.11 python3.12 python; do
    if fits "$candidate"; then interpreter=$candidate; break; fi
done
if [ -z "$interpreter" ]; then
    echo "error: Python 3.11 or 3.12 is needed, and ${PYTHON:-python3} is $("${PYTHON:-python3}" --version 2>&1 || true);" \
         "install one, or name it: PYTHON=/path/to/python3.11 bash rrt_scripts/install.sh" >&2
    exit 1
fi

if command -v flock >/dev/null; then  # two scripts started together must not install at once
    exec 9>.venv.lock
    flock 9
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(wanted)" ]; then exit 0; fi
fi

rm -f "$stamp"
if ! fits .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    echo "making .venv with $("$interpreter" --version)"
    if ! "$interpreter" -m venv --clear .venv; then
        echo "error: $interpreter cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2
        exit 1
    fi
fi
echo "installing the requirements into .venv (once; some minutes)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input -r requirements.txt
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps --no-build-isolation -e .
wanted > "$stamp.part"
mv "$stamp.part" "$stamp"
