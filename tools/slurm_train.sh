#!/usr/bin/env bash
# sbatch OPTIONS tools/slurm_train.sh CONFIG WORK_DIR NUM_GPUS [options of tools/train.py]
#
# dist_train.sh on every machine of a SLURM job, from the repository's folder. NUM_GPUS are those of one machine, and
# OPTIONS what the cluster wants to hear: --nodes=2 --gpus-per-node=8 --cpus-per-task=64 --time=1-0 --account=A
# --partition=P. Two minutes before the time is up the run is told to stop; the job then queues again, and goes on from
# the newest checkpoint of WORK_DIR, until it is done. An error ends it. RESTARTS, WAIT: see dist_train.sh.
#SBATCH --job-name=clip-rc
#SBATCH --ntasks-per-node=1
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
usage() { sed -n '2,7s/^# \{0,1\}//p' "$0"; }
case ${1:-} in -h | --help) usage; exit 0 ;; esac
if [ $# -lt 3 ]; then usage >&2; exit 2; fi
[ -n "${SLURM_JOB_ID:-}" ] || { echo "error: no SLURM job: sbatch tools/slurm_train.sh ..." >&2; exit 1; }
[ -e dist_train.sh ] || { echo "error: call sbatch in the folder that has dist_train.sh." >&2; exit 1; }
NNODES=$SLURM_JOB_NUM_NODES
PORT=$((20000 + SLURM_JOB_ID % 12000)) # jobs that share a machine have their own; Linux gives out those from 32768 up
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export NNODES PORT MASTER_ADDR
status=0
# shellcheck disable=SC2016  # each machine has a number of its own
srun ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
  bash -c 'NODE_RANK=$SLURM_NODEID exec bash dist_train.sh "$@"' - "$@" --auto-resume || status=$?
if [ $status = 143 ]; then # SIGTERM
  echo "the time is up: the job queues again"
  scontrol requeue "$SLURM_JOB_ID"
  sleep 60 # it ends this script
fi
exit $status
