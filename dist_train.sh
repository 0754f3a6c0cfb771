#!/usr/bin/env bash
# bash dist_train.sh CONFIG WORK_DIR NUM_GPUS [options of tools/train.py, such as --load-from CKPT]
#
# One process per GPU; without any GPU, NUM_GPUS processes on the CPU. For several machines run it on each with
#   NNODES=2 NODE_RANK=0|1 MASTER_ADDR=address-of-the-first PORT=29500
# RESTARTS=N: begin again up to N times when a process is killed or crashes (default: 3 with several machines, else 0).
# WAIT=SECONDS: how long machines wait for each other (default: 600). tools/many_machines.md tells of all this.
set -euo pipefail
usage() { sed -n '2,7s/^# \{0,1\}//p' "$0"; }
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
for known in NNODES:1:100000 NODE_RANK:0:100000 PORT:1:65535 WAIT:1:10000000 RESTARTS:0:10000; do
  IFS=: read -r name least most <<<"$known"
  value=${!name:-$least}
  [[ $value =~ ^(0|[1-9][0-9]{0,8})$ ]] && ((value >= least && value <= most)) ||
    { echo "error: $name=$value is no whole number from $least to $most." >&2; exit 2; }
done
machines=${NNODES:-1} wait=${WAIT:-600}
if ((machines > 1)) && [ -z "${MASTER_ADDR:-}" ]; then
  echo "error: NNODES=$machines needs MASTER_ADDR=ADDRESS, the first machine's as the others know it." >&2
  exit 2
fi
exec "$python" "$here/tools/torchrun.py" \
  --nnodes "$machines" --node_rank "${NODE_RANK:-0}" --nproc_per_node "$gpus" \
  --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}" \
  --max_restarts "${RESTARTS:-$((machines > 1 ? 3 : 0))}" --rdzv_conf "join_timeout=$wait,read_timeout=$wait" \
  "$here/tools/train.py" "$config" --work-dir "$work_dir" --launcher pytorch "$@"
