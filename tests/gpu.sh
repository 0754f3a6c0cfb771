#!/usr/bin/env bash
# bash tests/gpu.sh [--wheels DIR] [--out DIR] [--dry-run]
#
# Prove on a machine with a GPU what no other can show: the tests marked gpu, then speed, memory and waits of the host
# beside the method word for word. Ten minutes at most, no network. DIR/gpu.json and DIR/tests.txt hold the results
# (default: work_dirs/gpu).
#
#   --wheels DIR   on a machine without this project's environment: use its `python3` and PyTorch, and the wheels of
#                  tests/gpu_wheels.txt in DIR; nothing is installed
#   --dry-run      the same on a CPU with small shapes, to show that the command works
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
wheels='' out=$here/work_dirs/gpu dry=''
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$here/tests/gpu.sh"; exit 0 ;;
    --wheels | --out) [[ ${2:--} != -* ]] || { echo "error: $1 needs a folder" >&2; exit 2; } ;;&
    --wheels) compgen -G "$2/*.whl" >/dev/null || { echo "error: no wheels in $2" >&2; exit 2; }
      wheels=$(cd "$2" && pwd); shift ;;
    --out) out=$2; shift ;;
    --dry-run) dry=--dry-run ;;
    *) echo "error: unknown argument $1" >&2; exit 2 ;;
  esac
  shift
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$here"
python=${PYTHON:-.venv/bin/python}
if [ -n "$wheels" ]; then
  python=${PYTHON:-python3} site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$wheels"/*.whl
  export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
fi
export PYTHON=$python
[ -z "$dry" ] || export GPU_TESTS_ON=cpu
mapfile -t files < <(grep -rl --include='test_*.py' 'mark\.gpu' tests)
failed=0
timeout 330 "$python" -m pytest "${files[@]}" -m gpu -rs >"$out/tests.txt" 2>&1 || failed=$?
tail -n 40 "$out/tests.txt"
timeout 270 "$python" tests/gpu.py --out "$out" $dry || failed=$?
exit "$failed"
