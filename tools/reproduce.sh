#!/usr/bin/env bash
# bash tools/reproduce.sh BENCHMARK NUM_GPUS [options that train.py and test.py share, such as --data-root DIR]
#
# BENCHMARK: voc12, coco, context60 (or context), context59, context59misindexed; see configs/README.md.
# Trains the inductive, the transductive (from the middle of the inductive run) and the fully supervised setting with a
# total batch of 16, tests each, and prints one table beside the published rows. Run it again to continue.
# WORK_DIR: folder of the results (default: work_dirs/BENCHMARK). SEED: of the trainings (default: a random one).
# ITERATIONS: shorter schedules, for a rehearsal (default: the config's).
set -euo pipefail
usage() { sed -n '2,8s/^# \{0,1\}//p' "$0"; }
case ${1:-} in -h | --help) usage; exit 0 ;; esac
if [ $# -lt 2 ] || ! [[ $2 =~ ^[1-9][0-9]*$ ]]; then usage >&2; exit 2; fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
case $1 in
  voc12) folder=voc12 long=40 short=20 name=voc_10_16 each=8 ;;
  coco) folder=coco long=80 short=40 name=coco_stuff164k_100_16 each=2 ;;
  context) folder=context long=40 short=20 name=context60_10_16 each=4 ;;
  context60 | context59 | context59misindexed) folder=context long=40 short=20 name=$1_10_16 each=4 ;;
  *) usage >&2; exit 2 ;;
esac
configs=$here/configs/$folder/clip_rc
inductive=${configs}_zero_vit-b_512x512_${long}k_$name.py
transductive=${configs}_zero_vit-b_512x512_${short}k_${name}_st.py
fully=${configs}_fully_vit-b_512x512_${long}k_$name.py
work=${WORK_DIR:-work_dirs/$1}
iterations=${ITERATIONS:-${long}000}
gpus=$2
shift 2
python=${PYTHON:-$here/.venv/bin/python}
[ -x "$python" ] || { echo "error: no environment: bash tools/setup_env.sh" >&2; exit 1; }
export PYTHON=$python

# The config's images per GPU, or fewer with many GPUs; with few GPUs gradients are accumulated to a batch of 16.
[ $((16 % gpus)) = 0 ] || { echo "error: 16 images cannot be divided among $gpus GPUs: use 1, 2, 4, 8 or 16." >&2; exit 1; }
images=$((16 / gpus < each ? 16 / gpus : each))
accumulated=$((16 / (images * gpus)))

train() { # SETTING CONFIG ITERATIONS [options]
  local folder=$work/$1 config=$2 length=$3 interval=$(($3 < 10 ? 1 : $3 / 10))
  shift 3
  [ ! -e "$folder/trained" ] || return 0
  bash "$here/dist_train.sh" "$config" "$folder" "$gpus" --auto-resume --total-batch-size 16 \
    ${SEED:+--seed "$SEED"} "$@" --cfg-options data.samples_per_gpu=$images runner.max_iters="$length" \
    checkpoint_config.interval=$interval evaluation.interval=$interval
  touch "$folder/trained"
}

test_it() { # SETTING CONFIG [options]
  local folder=$work/$1 config=$2
  shift 2
  [ -z "$(find "$folder" -maxdepth 1 -name 'eval_single_scale_*.json' -newer "$folder/trained")" ] || return 0
  "$python" -m torch.distributed.run --standalone --nproc-per-node "$gpus" "$here/test.py" \
    "$config" "$folder/latest.pth" --launcher pytorch --eval mIoU --work-dir "$folder" "$@"
}

train inductive "$inductive" "$iterations" "$@"
test_it inductive "$inductive" "$@"
middle=$work/inductive/iter_$((iterations / 2 * accumulated)).pth
train transductive "$transductive" $((iterations / 2)) --load-from "$middle" "$@"
test_it transductive "$transductive" "$@"
train fully "$fully" "$iterations" "$@"
test_it fully "$fully" "$@"
"$python" "$here/tools/summarize.py" "$work/inductive" "$work/transductive" "$work/fully"
