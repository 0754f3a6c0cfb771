#!/usr/bin/env bash
# bash tools/reproduce.sh voc12 NUM_GPUS [options that train.py and test.py share, such as --data-root DIR]
#
# Trains inductive, transductive (from the middle of the inductive run) and fully supervised with the published total
# batch of 16, tests each, and prints one table beside the published rows. Run it again and it goes on where it stopped.
# WORK_DIR (default: work_dirs/voc12) is where; ITERATIONS (default: 40000) shortens all schedules for a rehearsal.
set -euo pipefail
usage() { sed -n '2,6s/^# \{0,1\}//p' "$0"; }
case ${1:-} in -h | --help) usage; exit 0 ;; esac
if [ $# -lt 2 ] || [ "$1" != voc12 ] || ! [[ $2 =~ ^[1-9][0-9]*$ ]]; then
  usage >&2
  exit 2
fi
gpus=$2
shift 2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=${WORK_DIR:-work_dirs/voc12}
iterations=${ITERATIONS:-40000}
python=${PYTHON:-$here/.venv/bin/python}
[ -x "$python" ] || { echo "error: no environment: bash tools/setup_env.sh" >&2; exit 1; }
export PYTHON=$python

# 8 pictures a GPU, fewer where there are more than 2 GPUs; on one GPU two batches are accumulated to 16.
[ $((16 % gpus)) = 0 ] || { echo "error: 16 pictures cannot be divided among $gpus GPUs: use 1, 2, 4, 8 or 16." >&2; exit 1; }
pictures=$((gpus == 1 ? 8 : 16 / gpus))
accumulated=$((16 / (pictures * gpus)))

train() { # SETTING CONFIG ITERATIONS [options]
  local folder=$work/$1 config=$2 length=$3 interval=$(($3 < 10 ? 1 : $3 / 10))
  shift 3
  [ ! -e "$folder/trained" ] || return 0
  bash "$here/dist_train.sh" "$config" "$folder" "$gpus" --auto-resume --total-batch-size 16 "$@" --cfg-options \
    data.samples_per_gpu=$pictures runner.max_iters="$length" \
    checkpoint_config.interval=$interval evaluation.interval=$interval
  touch "$folder/trained"
}

test_it() { # SETTING CONFIG [options]
  local folder=$work/$1 config=$2
  shift 2
  [ -z "$(find "$folder" -maxdepth 1 -name 'eval_single_scale_*.json' -newer "$folder/trained")" ] || return 0
  "$python" "$here/tools/torchrun.py" --nproc_per_node "$gpus" --master_port "${PORT:-29500}" "$here/test.py" \
    "$config" "$folder/latest.pth" --launcher pytorch --eval mIoU --work-dir "$folder" "$@"
}

configs=$here/configs/voc12
inductive=$configs/clip_rc_zero_vit-b_512x512_40k_voc_10_16.py
transductive=$configs/clip_rc_zero_vit-b_512x512_20k_voc_10_16_st.py
fully=$configs/clip_rc_fully_vit-b_512x512_40k_voc_10_16.py

train inductive "$inductive" "$iterations" "$@"
test_it inductive "$inductive" "$@"
middle=$work/inductive/iter_$((iterations / 2 * accumulated)).pth
train transductive "$transductive" $((iterations / 2)) --load-from "$middle" "$@"
test_it transductive "$transductive" "$@"
train fully "$fully" "$iterations" "$@"
test_it fully "$fully" "$@"
"$python" "$here/tools/summarize.py" "$work/inductive" "$work/transductive" "$work/fully"
