#!/usr/bin/env bash
# Makes the environment where it is missing, lints, and runs all tests: `bash tests/run.sh [pytest options]`.
#
#   bash tests/run.sh --python 3.12 --torch 2.7.1 [pytest options]
#
# runs them with another Python (a version, or an interpreter's path), another torch, or both, in an environment of
# their own; `.venv` stays as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
env=.venv python=${PYTHON:-} torch=${TORCH:-}
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' tests/run.sh; exit 0 ;;
    --python | --torch) [ $# -gt 1 ] || { echo "error: $1 needs a version" >&2; exit 2; } ;;&
    --python) python=$2 ;;
    --torch) torch=$2 ;;
    *) break ;;
  esac
  env=apart
  shift 2
done
if [ $env = apart ]; then
  [[ $python =~ ^3\.[0-9]+$ ]] && python=python$python
  env=$(PYTHON=$python TORCH=$torch bash tools/setup_env.sh --apart)
else
  bash tools/setup_env.sh
fi
"$env/bin/ruff" check .
# One thread a process: the tests run side by side.
OMP_NUM_THREADS=1 exec "$env/bin/python" -m pytest -n "${TEST_PROCESSES:-$(nproc)}" --dist worksteal "$@"
