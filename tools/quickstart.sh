#!/usr/bin/env bash
# bash tools/quickstart.sh   CLIP-RC in miniature: zero-shot segmentation in minutes, without a GPU
#
# Makes the environment if there is none (which downloads Python packages), draws a small world, trains with masks of
# 15 of its 20 classes, tests on all 20, and shows scores and images. Run it again to continue an interrupted run.
#   --iterations N   iterations of the inductive training (default: 1200); the transductive one has half as many
#   SEED=1           seed of the trainings (default: 0)
#   WORK_DIR=DIR     folder of the results (default: work_dirs/miniature)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
usage() { sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
fail() { printf 'error: %s\n' "$@" >&2; exit 1; }

iterations=1200
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --iterations) [ $# -gt 1 ] || fail "--iterations needs a number"; iterations=$2; shift 2 ;;
    *) usage >&2; fail "unknown option $1" ;;
  esac
done
[[ $iterations =~ ^[1-9][0-9]{0,6}$ ]] && ((iterations >= 4)) ||
  fail "--iterations $iterations: a whole number from 4 to 9999999 is needed"
seed=${SEED:-0}
work=${WORK_DIR:-$here/work_dirs/miniature}

bash "$here/tools/setup_env.sh"
python=$here/.venv/bin/python
# Operations are so small that a second thread does not help; one thread gives the same numbers on any number of cores,
# and does not wait for the others on a busy machine.
export OMP_NUM_THREADS=1
# Large blocks of memory stay with the process: glibc would return them at every step, a third of the time on a CPU.
export MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296

# The work folder belongs to one run of one version of the code with these settings.
mkdir -p "$work" 2>/dev/null && [ -w "$work" ] || fail "cannot write to $work: name another folder with WORK_DIR=DIR"
work=$(cd "$work" && pwd)
version=$(cd "$here" && find configs/_base_ configs/miniature datasets models tools test.py -name '*.py' -print0 |
  LC_ALL=C sort -z | xargs -0 cat | sha256sum | cut -c1-16)
settings="version $version, $iterations iterations, seed $seed"
if [ -e "$work/settings" ]; then
  [ "$(cat "$work/settings")" = "$settings" ] || fail "$work is of another version of the code, --iterations or SEED:" \
    "  there: $(cat "$work/settings")" "  here:  $settings" \
    "Remove it (rm -r $(printf %q "$work")), or name another folder with WORK_DIR=DIR"
elif [ -n "$(ls -A "$work")" ]; then
  fail "$work holds other files: name another folder with WORK_DIR=DIR"
fi
exec 9>"$work/.lock"
flock -n 9 || fail "another run is using $work: wait for it or stop it"
echo "$settings" >"$work/settings"

child='' watcher='' number=0
stop() {
  trap '' INT TERM HUP
  [ -z "$child" ] || { kill -TERM "$child" 2>/dev/null; wait "$child"; } || true
  printf '\nstopped: run the same command again to continue\n' >&2
  exit 130
}
trap stop INT TERM HUP
trap '[ -z "$watcher" ] || kill "$watcher" 2>/dev/null || true' EXIT

watch() { # TITLE LOG: shows the newest iteration of a training in place
  while sleep 1; do
    printf '\r\033[K%s: %s' "$1" "$(sed -n 's|.*Iter \[\([0-9/]*\)\].*eta: \([0-9:]*\),.*|iteration \1, \2 left|p' "$2" | tail -n 1)"
  done
}

step() { # NAME TITLE COMMAND...: runs a command unless it has succeeded before; its output goes to logs/NAME.log
  local log=$work/logs/$1.log completed=$work/logs/$1.done title="$((number += 1))/6 $2" began=$SECONDS status=0
  shift 2
  if [ -e "$completed" ]; then echo "$title: done before"; return; fi
  printf '%s' "$title"
  "$@" >"$log" 2>&1 &
  child=$!
  [ ! -t 1 ] || { watch "$title" "$log" & watcher=$!; }
  wait "$child" || status=$?
  child=''
  [ -z "$watcher" ] || { kill "$watcher"; wait "$watcher" || true; watcher=''; printf '\r\033[K%s' "$title"; } 2>/dev/null
  if [ $status = 0 ]; then
    printf ': %d s\n' $((SECONDS - began))
    touch "$completed"
    return
  fi
  echo
  tail -n 5 "$log" >&2
  fail "step $number failed (exit status $status); its output is in $log"
}

train() { # NAME CONFIG ITERATIONS [options of tools/train.py]
  local name=$1 config=$here/configs/miniature/$2.py iterations=$3
  shift 3
  exec "$python" "$here/tools/train.py" "$config" --work-dir "$work/$name" --seed "$seed" --no-validate --auto-resume \
    --data-root "$work/world" "$@" --cfg-options runner.max_iters="$iterations" \
    checkpoint_config.interval=$((iterations < 4 ? 1 : iterations / 4)) \
    log_config.interval=$((iterations < 950 ? 1 + iterations / 50 : 20))
}

evaluate() { # NAME CONFIG CHECKPOINT [options of test.py]
  local name=$1 config=$here/configs/miniature/$2.py checkpoint=$3
  shift 3
  exec "$python" "$here/test.py" "$config" "$checkpoint" --eval mIoU --work-dir "$work/$name" \
    --out "$work/$name/labels.pkl" --data-root "$work/world" "$@"
}

mkdir -p "$work/logs"
[ -d "$work/world" ] || rm -f "$work/logs/world.done"
step world 'drawing 1000 images for training and 200 for testing' \
  "$python" "$here/tools/miniature/world.py" "$work/world" --train 1000 --val 200
step inductive 'inductive training' train inductive inductive "$iterations"
step test_inductive 'testing it' evaluate inductive inductive "$work/inductive/latest.pth"
step transductive 'transductive training, from the middle of the inductive run' \
  train transductive transductive $((iterations / 2)) --load-from "$work/inductive/iter_$((iterations / 4 * 2)).pth"
step test_transductive 'testing it' evaluate transductive transductive "$work/transductive/latest.pth"
step control 'control: testing the inductive model with the names of unseen classes swapped' \
  evaluate control inductive "$work/inductive/latest.pth" \
  --cfg-options cross_dataset=True data.test.classes="$here/tools/miniature/swapped_names.txt"
"$python" "$here/tools/miniature/report.py" "$work"
