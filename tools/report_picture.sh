#!/usr/bin/env bash
# Take the picture of a report that the README shows; the report must be of simulated people.
#
#   make demo && tools/report_picture.sh demo/out/sub-02.html docs/images/report.png
#
# Needs Chromium (CHROMIUM names another program).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

report=$(realpath "$1") picture=$2
chromium=${CHROMIUM:-chromium}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$chromium" --headless --no-sandbox --disable-gpu --hide-scrollbars \
    --user-data-dir="$scratch/profile" --force-device-scale-factor=0.75 \
    --window-size=1100,2300 --screenshot="$scratch/page.png" "file://$report" 2>/dev/null
mkdir -p "$(dirname "$picture")"
"${PYTHON:-.venv/bin/python}" - "$scratch/page.png" "$picture" <<'PYTHON'
import sys

from PIL import Image

page = Image.open(sys.argv[1]).convert('RGB')
page.quantize(128, dither=Image.Dither.NONE).save(sys.argv[2], optimize=True)
PYTHON
