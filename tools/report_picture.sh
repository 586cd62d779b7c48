#!/usr/bin/env bash
# Take the picture of a page for the documentation; the page must be of simulated people.
#
#   make demo && tools/report_picture.sh demo/out/sub-02.html docs/images/report.png 2130
#   tools/report_picture.sh demo/out/index.html docs/images/index.png 960
#   .venv/bin/python tests/group_demo.py demo/group
#   tools/report_picture.sh demo/group/out/group.html docs/images/group.png 1750
#
# The number is the height that is shown, in CSS pixels; the width is 1100. Needs Chromium
# (CHROMIUM names another program).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

page=$(realpath "$1") picture=$2 height=${3:-1500}
chromium=${CHROMIUM:-chromium}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$chromium" --headless --no-sandbox --disable-gpu --hide-scrollbars \
    --user-data-dir="$scratch/profile" --force-device-scale-factor=0.75 \
    --window-size="1100,$height" --screenshot="$scratch/page.png" "file://$page" 2>/dev/null
mkdir -p "$(dirname "$picture")"
"${PYTHON:-.venv/bin/python}" - "$scratch/page.png" "$picture" <<'PYTHON'
import sys

from PIL import Image

page = Image.open(sys.argv[1]).convert('RGB')
page.quantize(128, dither=Image.Dither.NONE).save(sys.argv[2], optimize=True)
PYTHON
