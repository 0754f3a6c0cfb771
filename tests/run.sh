#!/usr/bin/env bash
# bash tests/run.sh [pytest options]   make the environment if it is missing, lint, run all tests
#
#   bash tests/run.sh --python 3.12 --torch 2.7.1 [pytest options]
#
# uses another Python (a version, or the path of an interpreter), another torch, or both, in a separate environment;
# `.venv` stays as it is. TEST_PROCESSES=N: number of processes (default: one per core).
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
# One thread per process, as the tests run side by side.
OMP_NUM_THREADS=1 exec "$env/bin/python" -m pytest -n "${TEST_PROCESSES:-$(nproc)}" --dist worksteal "$@"
