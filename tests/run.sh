#!/usr/bin/env bash
# Makes the environment where it is missing, lints, and runs all tests: `bash tests/run.sh [pytest options]`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh
.venv/bin/ruff check .
# One thread a process: the tests run side by side.
OMP_NUM_THREADS=1 exec .venv/bin/python -m pytest -n "${TEST_PROCESSES:-$(nproc)}" --dist worksteal "$@"
