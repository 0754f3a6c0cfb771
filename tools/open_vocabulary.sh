#!/usr/bin/env bash
# bash tools/open_vocabulary.sh CKPT [NUM_GPUS] [--cfg-options KEY=VALUE ...] [--aug-test] [--device cpu] ...
#
# Tests a COCO-Stuff model on those of the six datasets of the open-vocabulary suite that are prepared (A-847, PC-459,
# A-150, PC-59, PAS-20, PAS-20b), and prints one table beside published rows, also written as open_vocabulary.md and
# .json. CKPT is a file or a name of tools/download.py. Run it again to continue: what was tested with the same
# checkpoint, settings and data is not tested again. Without a GPU, NUM_GPUS processes (default: 1) on the CPU.
# WORK_DIR: folder of the results (default: work_dirs/open_vocabulary). DATA: folder of the datasets, as
# tools/prepare_data.py --root (default: data in the repository). NAMES=cleaned: class names of
# datasets/vocabularies/cleaned. OPTIONS_voc20="KEY=VALUE ...": of one dataset, such as data.test.prompt_set=single.
set -euo pipefail
usage() { sed -n '2,11s/^# \{0,1\}//p' "$0"; }
for option; do case $option in -h | --help) usage; exit 0 ;; esac; done
case ${1:-} in '' | -*) usage >&2; exit 2 ;; esac
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
launch=("$python") launcher=none
if [ "$gpus" != 1 ]; then
  launch=("$python" -m torch.distributed.run --standalone --nproc-per-node "$gpus") launcher=pytorch
fi
trap 'echo "interrupted: run it again to continue" >&2; exit 130' INT TERM
failed=
plan=$("$python" "$suite" plan "$checkpoint" "$@") # the file of the checkpoint, then a line for each dataset to test
{
  read -r checkpoint
  while IFS=$'\t' read -r -a fields; do # name, folder and options of a dataset
    name=${fields[0]} root=${fields[1]} options=("${fields[@]:2}")
    "${launch[@]}" "$here/test.py" "$here/configs/cross_dataset/coco_to_$name.py" "$checkpoint" "$@" \
      --launcher $launcher --eval mIoU --work-dir "$WORK_DIR/$name" --data-root "$root" \
      ${options:+--cfg-options "${options[@]}"} </dev/null || failed+=" $name"
  done
} <<<"$plan"
"$python" "$suite" table "$checkpoint" "$@" || failed=${failed:- table}
[ -z "$failed" ] || { echo "error: failed, see above:$failed. Run it again for the rest." >&2; exit 1; }
