#!/usr/bin/env bash
# bash dist_train.sh CONFIG WORK_DIR NUM_GPUS [options of tools/train.py, such as --load-from CKPT]
#
# One process per GPU; without a GPU, NUM_GPUS processes on the CPU. On several machines run it on each, with
#   NNODES=2 NODE_RANK=0|1 MASTER_ADDR=ADDRESS_OF_THE_FIRST PORT=29500
# RESTARTS=N: restart up to N times when a process fails (default: 3 on several machines, 0 on one).
# WAIT=SECONDS: how long machines wait for each other (default: 600). More: tools/many_machines.md
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
    { echo "error: $name=$value: an integer from $least to $most is needed." >&2; exit 2; }
done
machines=${NNODES:-1} wait=${WAIT:-600} restarts=${RESTARTS:-0} conf=
if ((machines > 1)); then
  [ -n "${MASTER_ADDR:-}" ] ||
    { echo "error: NNODES=$machines needs MASTER_ADDR: the first machine's address, as the others know it." >&2; exit 2; }
  ((${NODE_RANK:-0} < machines)) ||
    { echo "error: NODE_RANK=$NODE_RANK: with NNODES=$machines it goes from 0 to $((machines - 1))." >&2; exit 2; }
  restarts=${RESTARTS:-3}
  [ -z "${NODE_RANK:-}" ] || conf=is_host=$([ "$NODE_RANK" = 0 ] && echo true || echo false),
  meeting=(--nnodes "$machines" --rdzv-backend c10d --rdzv-endpoint "$MASTER_ADDR:${PORT:-29500}" --rdzv-id clip-rc)
elif [ -n "${PORT:-}" ]; then
  meeting=(--rdzv-backend c10d --rdzv-endpoint "localhost:$PORT" --rdzv-id clip-rc) conf=is_host=true,
else
  meeting=(--standalone) # on a free port
fi
threads=$(($(nproc) / gpus))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 1 ? threads : 1))} # each process's share of the CPU cores
export CLIPRC_JOB_BEGAN=${CLIPRC_JOB_BEGAN:-$(date +%s)}                  # a restart resumes checkpoints newer than this
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 # else a restart meets the addresses of the processes before it
exec "$python" -m torch.distributed.run "${meeting[@]}" --nproc-per-node "$gpus" --max-restarts "$restarts" \
  --rdzv-conf "${conf}join_timeout=$wait,read_timeout=$wait" \
  "$here/tools/train.py" "$config" --work-dir "$work_dir" --launcher pytorch "$@"
