#!/usr/bin/env bash
# Makes the Python environment of this checkout and links `.venv` to it.
#
#   bash tools/setup_env.sh            make it; quick if it is ready
#   bash tools/setup_env.sh --apart    make it, leave `.venv` as it is, and print its folder
#   CLIPRC_ENV=DIR bash tools/...      use the virtual environment in DIR as it is
#   PYTHON=python3.12 bash tools/...   another interpreter (3.10 to 3.12)
#   TORCH=2.7.1 bash tools/...         another torch that requirements.txt admits
#   CLIPRC_CACHE=DIR bash tools/...    folder of environments and compiled wheels (default: ~/.cache/clip-rc)
#
# With Python 3.11 on Linux x86_64 it installs the tested versions and checks their hashes (tools/environment/
# tested.lock), otherwise the versions that requirements.txt admits, with the tested torch. It downloads 2.9 GB and takes
# 4 minutes of CPU time, half of it to compile mmcv-full, once for each Python and torch. Clones share environments.
# Interrupted? Run it again.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=$(realpath -m "${CLIPRC_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/clip-rc}")
lock="$repo/tools/environment/tested.lock"

say() { printf 'setup_env: %s\n' "$*"; }
fail() { printf 'setup_env: %s\n' "$@" >&2; exit 1; }
case ${1:-} in
  '') ;;
  --apart) exec 3>&1 1>&2 ;; # only the folder goes to stdout
  -h | --help) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) fail "unknown option '$1': see --help" ;;
esac
apart=${1:-}

link_venv() { # DIR
  if [ -e "$repo/.venv" ] && [ ! -L "$repo/.venv" ]; then
    fail "$repo/.venv is a folder: move it away, or use it with CLIPRC_ENV=$repo/.venv"
  fi
  [ "$(readlink "$repo/.venv")" = "$1" ] || ln -sfn "$1" "$repo/.venv" ||
    fail "cannot write $repo/.venv: copy the repository to a folder that you can write to (cp -r)."
}

if [ -n "${CLIPRC_ENV:-}" ] && [ -z "$apart" ]; then
  CLIPRC_ENV=$(cd "$CLIPRC_ENV" 2>/dev/null && pwd || echo "$CLIPRC_ENV")
  [ -x "$CLIPRC_ENV/bin/python" ] || fail "CLIPRC_ENV=$CLIPRC_ENV has no bin/python: name a virtual environment."
  (cd "$repo" && "$CLIPRC_ENV/bin/python" -c 'import tools, torch, mmcv.ops, mmseg') ||
    fail "$CLIPRC_ENV misses the package in the last line; unset CLIPRC_ENV to have an environment made."
  [ "$CLIPRC_ENV" -ef "$repo/.venv" ] || link_venv "$CLIPRC_ENV"
  say "using $CLIPRC_ENV: source .venv/bin/activate"
  exit 0
fi

python=${PYTHON:-python3}
command -v "$python" >/dev/null || fail "no '$python'. Debian, Ubuntu: sudo apt-get install python3 python3-venv python3-dev"
version=$("$python" -c 'import sys; print("%d%d" % sys.version_info[:2])')
case $version in
  310 | 311 | 312) ;;
  *) fail "Python 3.10, 3.11 or 3.12 is needed, '$python' is $("$python" -V 2>&1): PYTHON=python3.11 bash tools/setup_env.sh" ;;
esac

# The lock's lines of one package, or of all others.
locked() { awk -v start="$1==" '/^[a-z]/ { mine = index($0, start) == 1 } mine' "$lock"; }
all_but() { awk -v start="$1==" '/^[a-z]/ { mine = index($0, start) != 1 } mine' "$lock"; }

tested_torch=$(locked torch | sed -n '1s/torch==\([^ ]*\).*/\1/p')
torch=${TORCH:-$tested_torch}
tested=
[ "$version-$(uname -sm)-$torch" != "311-Linux x86_64-$tested_torch" ] || tested=yes
requirements=("$repo"/requirements.txt "$repo"/tests/requirements.txt "$repo"/tools/*_requirements.txt)
[ -z "$tested" ] || requirements=("$lock")
env="$cache/envs/py$version-torch$torch-$(cat "${requirements[@]}" | sha256sum | cut -c1-12)"
complete="$env/.complete" # written last: the torch version that mmcv-full was compiled for
mkdir -p "$cache/envs" "$cache/wheels" || fail "cannot write to $cache: set CLIPRC_CACHE to another folder."

torch_of() { "$env/bin/python" -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null || echo none; }
finish() { # prints the folder, or links `.venv` to it
  if [ -n "$apart" ]; then echo "$env" >&3; return; fi
  link_venv "$env"
  say "ready: $("$python" -V), torch $(cat "$complete"): source .venv/bin/activate"
}

exec 9>"$env.lock"
flock -n 9 || { say "waiting for another run that makes this environment"; flock 9; }
if [ -f "$complete" ] && [ "$(cat "$complete")" = "$(torch_of)" ]; then
  finish
  exit 0
fi

"$python" -c 'import venv, ensurepip' 2>/dev/null || fail "Python's venv module is missing: sudo apt-get install python3-venv"
{ command -v g++ && command -v gcc; } >/dev/null || fail "no C++ compiler (gcc, g++): sudo apt-get install build-essential"
header=$("$python" -c 'import sysconfig, os; print(os.path.join(sysconfig.get_paths()["include"], "Python.h"))')
[ -f "$header" ] || fail "Python's headers are missing ($header): sudo apt-get install python3-dev"
free_gb=$(df -Pk "$cache" | awk 'NR == 2 { print int($4 / 1048576) }')
[ -d "$env/bin" ] || [ "$free_gb" -ge 10 ] ||
  fail "$free_gb GB free in $cache, 10 are needed: free some space, or set CLIPRC_CACHE to a folder on another disk."

work="$env.work" # log and downloads, removed at the end; kept when interrupted, as the next run needs them
log="$work/log"
mkdir -p "$work"
: >"$log"
job=
stop() {
  trap '' INT TERM HUP
  [ -z "$job" ] || { kill -TERM -- "-$job"; wait "$job"; } 2>/dev/null || true
  echo >&2
  fail "stopped: run the same command again to continue"
}
trap stop INT TERM HUP

# Runs a command in a process group of its own, and shows the seconds and what PROGRESS prints: in place on a terminal
# (80 columns), otherwise one line every ten seconds.
step() { # TITLE PROGRESS COMMAND...
  local title="setup_env: $1" progress=$2 began=$SECONDS shown=$SECONDS every=10 before='' after='\n' now status=0
  shift 2
  [ ! -t 1 ] || every=2 before='\r\033[K' after=''
  printf "%s$after" "$title"
  set -m
  "$@" >>"$log" 2>&1 </dev/null &
  job=$!
  set +m
  while kill -0 "$job" 2>/dev/null; do
    sleep 0.2
    [ $((SECONDS - shown)) -ge $every ] || continue
    shown=$SECONDS
    now=$("$progress" 2>/dev/null | cut -c 1-28) || true
    printf "$before%s: %d s%s$after" "$title" $((SECONDS - began)) "${now:+, $now}"
  done
  wait "$job" || status=$?
  job=
  [ $status = 0 ] && printf "$before%s: %d s\n" "$title" $((SECONDS - began)) || printf "$before%s: failed\n" "$title"
  return $status
}
said() { grep -v '^WARNING: Location' "$log"; } # pip warns of every folder in which it does not find a package
newest() { said | tail -n 1; }
unpacked() {
  if newest | grep -q '^Installed'; then echo 'compiling to bytecode'; return; fi
  du -sm "$work/uv" | awk '{ printf "%.1f of about 5.4 GB\n", $1 / 1024 }'
}
compiled() { echo "$(grep -c '^ *\[[0-9]/4\]' "$log") of 4 units"; }
fail_with_log() {
  cp "$log" "$env.log"
  { grep -m 3 ' error: ' "$log"; said | tail -n 20; } >&2 || true
  fail "$1; the whole log: $env.log"
}

say "environment: $env"
# What an interrupted run installed may be incomplete; its downloads are not lost.
if [ ! -f "$complete" ] || ! "$env/bin/python" -m pip --version >/dev/null 2>&1; then
  empty_environment() { rm -rf "$env" && "$python" -m venv "$env"; }
  step "1/5 virtual environment" newest empty_environment || fail_with_log "cannot make a virtual environment"
fi
rm -f "$complete"
pip() { "$env/bin/python" -m pip --disable-pip-version-check "$@"; }
uv() { "$env/bin/uv" --cache-dir "$work/uv" pip "$1" --python "$env/bin/python" --compile-bytecode "${@:2}"; }

if [ -n "$tested" ]; then
  all_but mmcv-full >"$work/packages"
  packages=(--require-hashes -r "$work/packages")
else
  say "$("$python" -V) with torch $torch is not the tested set: versions that requirements.txt admits, hashes unchecked"
  grep -v '^mmcv-full' "$repo/requirements.txt" >"$work/packages"
  packages=("torch==$torch" -r "$work/packages" -r "$repo/tests/requirements.txt")
fi
# uv downloads in parallel. It knows nothing of pip's settings: where they name an index or a proxy, pip is the way.
locked uv >"$work/uv.txt"
title='3/5 PyTorch and other packages'
if pip config list 2>/dev/null | grep -qE '\.(index-url|no-index|proxy)='; then
  say "2/5 pip has an index or a proxy of its own: without uv"
elif step "2/5 uv" newest pip install --no-deps --require-hashes -r "$work/uv.txt" &&
  step "$title" unpacked uv install "${packages[@]}"; then
  title=
else
  say "uv cannot install them ($(said | grep -i error | tail -n 1 | cut -c 1-100)): pip does, in a few minutes more"
fi
[ -z "$title" ] || step "$title" newest pip install --progress-bar off "${packages[@]}" ||
  fail_with_log "pip cannot install the packages"

wheels="$cache/wheels/py$version-torch$(torch_of)"
mkdir -p "$wheels"
if ! compgen -G "$wheels/mmcv_full-*.whl" >/dev/null; then
  rm -rf "$work/mmcv"
  mkdir "$work/mmcv"
  # CPU operators only, as no CUDA operator is used: needs no nvcc. Without pip's cache, which would give the wheel to an
  # environment with another torch. mmcv-full asks for C++17, torch's headers may for a later one: the last option wins.
  standard=$(sed -n 's/.*#error C++\([0-9]*\) or later.*/\1/p' "$env"/lib/python3*/site-packages/torch/include/ATen/ATen.h)
  printf '#!/bin/sh\nexec g++ "$@" -std=c++%s\n' "${standard:-17}" >"$work/mmcv/g++"
  chmod +x "$work/mmcv/g++"
  locked mmcv-full >"$work/mmcv/requirement"
  # A unit takes up to 2 GB of memory.
  jobs=$(awk -v cores="$(nproc)" '/MemAvailable/ { n = int($2 / 2e6); print n < 1 ? 1 : n < cores ? n : cores }' /proc/meminfo)
  compile() {
    export CUDA_VISIBLE_DEVICES='' MMCV_WITH_OPS=1 FORCE_CUDA=0 CFLAGS='-g0 -O1' CXX="$work/mmcv/g++" PATH="$env/bin:$PATH"
    export MAX_JOBS="${MAX_JOBS:-${jobs:-1}}"
    pip download --no-cache-dir --no-build-isolation --no-deps --no-binary :all: --dest "$work/mmcv" --require-hashes \
      -r "$work/mmcv/requirement" &&
      tar -xzf "$work"/mmcv/mmcv-full-*.tar.gz -C "$work/mmcv" &&
      "$env/bin/python" "$repo/tools/environment/join_sources.py" "$work"/mmcv/mmcv-full-*/ &&
      pip wheel --verbose --no-cache-dir --no-build-isolation --no-deps --no-index --wheel-dir "$work/mmcv" \
        "$work"/mmcv/mmcv-full-*/
  }
  step "4/5 compiling mmcv-full" compiled compile || fail_with_log "mmcv-full did not compile"
  mv "$work"/mmcv/mmcv_full-*.whl "$wheels/"
else
  say "4/5 mmcv-full was compiled before"
fi

# --force-reinstall: the same version may be installed, compiled for another torch.
finish_environment() {
  pip install --no-deps --force-reinstall --no-index "$wheels"/mmcv_full-*.whl &&
    # The lock has the packages that mmcv-full needs; without it they come now.
    { [ -n "$tested" ] || pip install --progress-bar off "torch==$torch" -r "$repo/requirements.txt"; } && cd "$repo" &&
    "$env/bin/python" -W ignore -c 'import tools, torch, torchvision, mmcv.ops, mmseg, timm, open_clip, fvcore' &&
    rm -rf "$work/uv"
}
step "5/5 installing it, importing all" newest finish_environment || fail_with_log "the new environment cannot import a package"
rm -rf "$work"
torch_of >"$complete"
say "made in $((SECONDS / 60)) min $((SECONDS % 60)) s"
finish
