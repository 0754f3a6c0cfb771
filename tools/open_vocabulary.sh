#!/usr/bin/env bash
# bash tools/open_vocabulary.sh CKPT [NUM_GPUS] [--cfg-options KEY=VALUE ...] [--aug-test] [--device cpu] ...
#
# Tests a COCO-Stuff model on those of the six datasets of the open-vocabulary suite that are prepared (A-847, PC-459,
# A-150, PC-59, PAS-20, PAS-20b), and prints one table beside published rows, also written as open_vocabulary.md and
# .json. CKPT is a file or a name of tools/download.py. Run it again to continue: what was tested with the same
# checkpoint, settings and data is not tested again. Without a GPU, NUM_GPUS processes (default: 1) on the CPU.
# WORK_DIR: folder of the results (default: work_dirs/open_vocabulary). DATA: folder of the datasets, as
# tools/prepare_data.py --root (default: data in the repository).
set -euo pipefail
usage() { sed -n '2,9s/^# \{0,1\}//p' "$0"; }
case ${1:-} in -h | --help) usage; exit 0 ;; '' | -*) usage >&2; exit 2 ;; esac
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
checkpoint=$1 gpus=1
shift
if [[ ${1:--} != -* ]]; then
  [[ $1 =~ ^[1-9][0-9]*$ ]] || { usage >&2; echo "error: NUM_GPUS=$1: a positive integer is needed." >&2; exit 2; }
  gpus=$1
  shift
fi
export WORK_DIR=${WORK_DIR:-work_dirs/open_vocabulary} DATA=${DATA:-$here/data}
python=${PYTHON:-$here/.venv/bin/python}
[ -x "$python" ] || { echo "error: no environment: bash tools/setup_env.sh" >&2; exit 1; }

suite=$here/tools/results/open_vocabulary.py
plan=$("$python" "$suite" plan "$checkpoint" "$@") # the file of the checkpoint, then a line for each dataset to test
{
  read -r checkpoint
  while IFS=$'\t' read -r name root; do
    "$python" -m torch.distributed.run --standalone --nproc-per-node "$gpus" "$here/test.py" \
      "$here/configs/cross_dataset/coco_to_$name.py" "$checkpoint" "$@" --launcher pytorch --eval mIoU \
      --work-dir "$WORK_DIR/$name" --data-root "$root" </dev/null
  done
} <<<"$plan"
"$python" "$suite" table "$checkpoint" "$@"
