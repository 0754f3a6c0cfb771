#!/usr/bin/env bash
# bash dist_train.sh CONFIG WORK_DIR NUM_GPUS [options of tools/train.py, such as --load-from CKPT]
#
# One process per GPU; without any GPU, NUM_GPUS processes on the CPU. For several machines run it on each with
#   NNODES=2 NODE_RANK=0|1 MASTER_ADDR=address-of-the-first PORT=29500
set -euo pipefail
usage() { sed -n '2,5s/^# \{0,1\}//p' "$0"; }
case ${1:-} in -h | --help) usage; exit 0 ;; esac
if [ $# -lt 3 ] || ! [[ $3 =~ ^[1-9][0-9]*$ ]]; then
  usage >&2
  exit 2
fi
config=$1 work_dir=$2 gpus=$3
shift 3
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python}
if [ -z "${PYTHON:-}" ] && [ -z "${VIRTUAL_ENV:-}" ] && [ -x "$here/.venv/bin/python" ]; then
  python=$here/.venv/bin/python
fi
command -v "$python" >/dev/null ||
  { echo "error: no environment: bash tools/setup_env.sh && source .venv/bin/activate" >&2; exit 1; }
exec "$python" "$here/tools/torchrun.py" \
  --nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}" --nproc_per_node "$gpus" \
  --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}" \
  "$here/tools/train.py" "$config" --work-dir "$work_dir" --launcher pytorch "$@"
