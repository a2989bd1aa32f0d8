#!/usr/bin/env bash
# For the tests of web pages: Debian's Chromium and its driver, where they are missing and may be installed; otherwise says what to do.
set -euo pipefail
case ${1:-} in -h|--help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
if command -v chromedriver >/dev/null && command -v chromium >/dev/null; then exit 0; fi
hint="tests in a browser are skipped; for them: apt-get install chromium chromium-driver"
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "no chromium and chromedriver here: $hint"
    exit 0
fi
echo "installing chromium and chromedriver (once)"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver fonts-dejavu-core; } >"$log" 2>&1 ||
    { tail -n 3 "$log"; echo "chromium could not be installed: $hint"; }
rm -f "$log"
