#!/usr/bin/env bash
# The site of docs/ in build/site, strictly: a link that leads nowhere, a page without a place in the contents, a name that the Python
# pages cannot find end it with an error.
#   bash rrt_scripts/docs.sh            build it
#   bash rrt_scripts/docs.sh serve      and show it at http://127.0.0.1:8000/, again after every change
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case ${1:-} in
    -h|--help) sed -n '2,5s/^# \{0,1\}//p' rrt_scripts/docs.sh; exit 0 ;;
esac
bash rrt_scripts/install.sh
export NO_MKDOCS_2_WARNING=1
if [ "${1:-}" = serve ]; then exec .venv/bin/python -m mkdocs serve; fi
.venv/bin/python -m mkdocs build --strict "$@"  # --quiet would count no warning
echo "the site is in build/site: open build/site/index.html"
