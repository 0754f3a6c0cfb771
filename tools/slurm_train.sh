#!/usr/bin/env bash
# sbatch OPTIONS tools/slurm_train.sh CONFIG WORK_DIR NUM_GPUS [options of tools/train.py]
#
# dist_train.sh on every machine of a SLURM job; submit it in the repository's folder. NUM_GPUS is per machine, OPTIONS
# are the cluster's, such as --nodes=2 --gpus-per-node=8 --cpus-per-task=64 --time=1-0 --account=A --partition=P.
# Two minutes before the time limit the run stops with a checkpoint and the job queues again, until the training is
# complete; each time it resumes from the newest checkpoint of WORK_DIR. An error ends the job. RESTARTS and WAIT are
# those of dist_train.sh.
#SBATCH --job-name=clip-rc
#SBATCH --ntasks-per-node=1
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
usage() { sed -n '2,8s/^# \{0,1\}//p' "$0"; }
case ${1:-} in -h | --help) usage; exit 0 ;; esac
if [ $# -lt 3 ]; then usage >&2; exit 2; fi
[ -n "${SLURM_JOB_ID:-}" ] || { echo "error: no SLURM job: sbatch tools/slurm_train.sh ..." >&2; exit 1; }
[ -e dist_train.sh ] || { echo "error: call sbatch in the folder that has dist_train.sh." >&2; exit 1; }
NNODES=$SLURM_JOB_NUM_NODES
PORT=$((20000 + SLURM_JOB_ID % 12000)) # one per job, below the range that Linux gives out itself (from 32768)
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export NNODES PORT MASTER_ADDR
# shellcheck disable=SC2016  # each machine expands its own SLURM_NODEID
srun ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
  bash -c 'NODE_RANK=$SLURM_NODEID exec bash dist_train.sh "$@"' - "$@" --auto-resume &
srun=$! time_is_up=
trap 'time_is_up=1; kill -TERM "$srun"' USR1 # srun passes the signal on
status=0
wait "$srun" || status=$?
if [ -n "$time_is_up" ]; then # the signal ended `wait`, not srun
  status=0
  wait "$srun" || status=$?
fi
if [ -n "$time_is_up" ] && [ $status != 0 ]; then
  echo "the time limit is near: the job queues again"
  scontrol requeue "$SLURM_JOB_ID"
  sleep 60 # until SLURM ends this script
fi
exit $status
