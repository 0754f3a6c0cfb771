#!/usr/bin/env bash
# bash tools/quickstart.sh   CLIP-RC in miniature: zero-shot segmentation in minutes, without a GPU
#
# Makes the environment if there is none (which downloads Python packages), then draws a small world, trains on it with
# the masks of 5 of its 20 classes withheld, and scores those classes too. What it makes lies in WORK_DIR (default:
# work_dirs/miniature). Run it again and it goes on where it stopped.
#   --length 4   trains four times as long
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case ${1:-} in -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
bash "$here/tools/setup_env.sh"
exec "$here/.venv/bin/python" "$here/tools/miniature/quickstart.py" "$@"
