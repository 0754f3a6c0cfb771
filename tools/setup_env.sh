#!/usr/bin/env bash
# Makes the Python environment of this checkout and points `.venv` to it.
#
#   bash tools/setup_env.sh            make it, or do nothing when it already stands
#   bash tools/setup_env.sh --apart    make it, leave `.venv` as it is, and print where it lies
#   CLIPRC_ENV=DIR bash tools/...      use the virtual environment in DIR as it is
#   PYTHON=python3.12 bash tools/...   another interpreter (3.10 to 3.12)
#   TORCH=2.7.1 bash tools/...         another torch that requirements.txt admits
#   CLIPRC_CACHE=DIR bash tools/...    where environments and compiled wheels are kept
#                                      (default: ~/.cache/clip-rc)
#
# With Python 3.11 on Linux x86_64 the tested versions are installed and their hashes checked
# (tools/environment/tested.lock); else what requirements.txt admits, with the tested torch.
# Environments are keyed by Python, torch and a hash of what is asked for, so several clones
# share one. Each step can be interrupted and run again. mmcv-full is compiled once per torch
# and Python version (5 to 15 minutes on 2 cores) and its wheel is kept.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${CLIPRC_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/clip-rc}

say() { printf 'setup_env: %s\n' "$*"; }
fail() { printf 'setup_env: %s\n' "$@" >&2; exit 1; }
case ${1:-} in
  '') ;;
  --apart) exec 3>&1 1>&2 ;; # the folder's name is all that is printed
  -h | --help) sed -n '2,16s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) fail "unknown option '$1': see --help" ;;
esac
apart=${1:-}

point_venv_to() {
  if [ -e "$repo/.venv" ] && [ ! -L "$repo/.venv" ]; then
    fail "$repo/.venv is a folder of its own; move it away, or use it with CLIPRC_ENV=$repo/.venv" 
  fi
  [ "$(readlink "$repo/.venv")" = "$1" ] || ln -sfn "$1" "$repo/.venv" ||
    fail "can't write to $repo, where .venv belongs: copy it to a folder that you can write to (cp -r)."
}

finish() { if [ -n "$apart" ]; then echo "$env" >&3; else point_venv_to "$env"; fi; }

if [ -n "${CLIPRC_ENV:-}" ] && [ -z "$apart" ]; then
  CLIPRC_ENV=$(cd "$CLIPRC_ENV" 2>/dev/null && pwd || echo "$CLIPRC_ENV")
  [ -x "$CLIPRC_ENV/bin/python" ] || fail "CLIPRC_ENV=$CLIPRC_ENV holds no bin/python: name a virtual environment."
  (cd "$repo" && "$CLIPRC_ENV/bin/python" -c 'import tools, torch, mmcv.ops, mmseg') ||
    fail "the environment in $CLIPRC_ENV lacks what the last line names; unset CLIPRC_ENV to have one made."
  [ "$CLIPRC_ENV" -ef "$repo/.venv" ] || point_venv_to "$CLIPRC_ENV"
  say "using $CLIPRC_ENV: source .venv/bin/activate"
  exit 0
fi

python=${PYTHON:-python3}
command -v "$python" >/dev/null || fail "no '$python' here. Debian or Ubuntu: sudo apt-get install python3 python3-venv python3-dev"
version=$("$python" -c 'import sys; print("%d%d" % sys.version_info[:2])')
case $version in
  310 | 311 | 312) ;;
  *) fail "Python 3.10, 3.11 or 3.12 is needed, '$python' is $("$python" -V 2>&1)." "Name another one: PYTHON=python3.11 bash tools/setup_env.sh" ;;
esac

lock="$repo/tools/environment/tested.lock"
# The lock's lines of one package, or of all but one.
locked() { awk -v start="$1==" '/^[a-z]/ { mine = index($0, start) == 1 } mine' "$lock"; }
all_but() { awk -v start="$1==" '/^[a-z]/ { mine = index($0, start) != 1 } mine' "$lock"; }

tested_torch=$(locked torch | sed -n '1s/torch==\([^ ]*\).*/\1/p')
torch=${TORCH:-$tested_torch}
if [ "$version-$(uname -sm)-$torch" = "311-Linux x86_64-$tested_torch" ]; then
  asked=("$lock")
else
  asked=("$repo"/requirements.txt "$repo"/tests/requirements.txt "$repo"/tools/*_requirements.txt)
fi
is_locked() { [ "${asked[0]}" = "$lock" ]; }
env="$cache/envs/py$version-torch$torch-$(cat "${asked[@]}" | sha256sum | cut -c1-12)"
stands="$env/.complete" # written last; holds the torch version that mmcv-full was compiled for
mkdir -p "$cache/envs" "$cache/wheels" || fail "can't write to $cache: set CLIPRC_CACHE to a folder that can be written."

torch_of() { "$env/bin/python" -c 'from importlib.metadata import version; print(version("torch"))' 2>/dev/null || echo none; }
is_whole() { [ -f "$stands" ] && [ "$(cat "$stands")" = "$(torch_of)" ]; }

exec 9>"$env.lock"
flock -n 9 || { say "another run is making this environment; waiting for it"; flock 9; }
if is_whole; then
  finish
  exit 0
fi

# What a run would trip over later is looked at first.
"$python" -c 'import venv, ensurepip' 2>/dev/null || fail "Python's venv module is missing: sudo apt-get install python3-venv"
missing=
command -v g++ >/dev/null || missing="$missing g++"
command -v gcc >/dev/null || missing="$missing gcc"
[ -z "$missing" ] || fail "no C++ compiler ($missing ) to build mmcv-full with: sudo apt-get install build-essential"
header=$("$python" -c 'import sysconfig, os; print(os.path.join(sysconfig.get_paths()["include"], "Python.h"))')
[ -f "$header" ] || fail "Python's headers are missing ($header): sudo apt-get install python3-dev"
free_gb=$(df -Pk "$cache" | awk 'NR == 2 { print int($4 / 1048576) }')
[ -d "$env/bin" ] || [ "$free_gb" -ge 10 ] ||
  fail "$free_gb GB free in $cache, 10 are needed." "Make room, or set CLIPRC_CACHE to a folder on a larger disk."

rm -f "$stands"
if ! "$env/bin/python" -m pip --version >/dev/null 2>&1; then
  rm -rf "$env"
  "$python" -m venv "$env"
fi
pip() { "$env/bin/python" -m pip --disable-pip-version-check "$@"; }

say "environment: $env"
say "1/3 PyTorch (about 5 GB unpacked) and everything else but mmcv-full"
if is_locked; then
  pip install --quiet --progress-bar off --require-hashes -r <(all_but mmcv-full)
else
  say "Python $("$python" -V | cut -d' ' -f2) with torch $torch is not the tested set: versions that requirements.txt admits, hashes unchecked"
  pip install --quiet --progress-bar off "torch==$torch" -r <(grep -v '^mmcv-full' "$repo/requirements.txt") \
    -r "$repo/tests/requirements.txt"
fi

wheels="$cache/wheels/py$version-torch$(torch_of)"
mkdir -p "$wheels"
if ! ls "$wheels"/mmcv_full-*.whl >/dev/null 2>&1; then
  building=$(mktemp -d "$cache/wheels/building.XXXX")
  say "2/3 compiling mmcv-full (5 to 15 minutes on 2 cores, once; what it says: $building/log)"
  trap 'rm -rf "$building"' EXIT
  # CPU operators only (nothing here uses its CUDA ones), so no nvcc is needed. pip's own cache
  # would hand the wheel to an environment with another torch. ninja comes from the environment.
  # mmcv-full asks for C++17, torch's headers for what they say; of two standards the last counts.
  standard=$(sed -n 's/.*#error C++\([0-9]*\) or later.*/\1/p' "$env"/lib/python3*/site-packages/torch/include/ATen/ATen.h)
  printf '#!/bin/sh\nexec g++ "$@" -std=c++%s\n' "${standard:-17}" >"$building/g++"
  chmod +x "$building/g++"
  if ! CUDA_VISIBLE_DEVICES='' MMCV_WITH_OPS=1 FORCE_CUDA=0 CFLAGS='-g0 -O1' CXX="$building/g++" PATH="$env/bin:$PATH" \
    pip wheel --no-cache-dir --no-build-isolation --no-deps --wheel-dir "$building" --require-hashes \
      -r <(locked mmcv-full) >"$building/log" 2>&1; then
    cp "$building/log" "$cache/wheels/mmcv-build.log"
    tail -n 20 "$building/log" >&2
    fail "mmcv-full did not compile; the whole log: $cache/wheels/mmcv-build.log"
  fi
  mv "$building"/mmcv_full-*.whl "$wheels/"
fi

say "3/3 mmcv-full"
# --force-reinstall: the same version may be there, compiled for another torch.
pip install --quiet --no-deps --force-reinstall --no-index "$wheels"/mmcv_full-*.whl
is_locked || pip install --quiet --progress-bar off "torch==$torch" -r "$repo/requirements.txt" # what it needs itself
(cd "$repo" && "$env/bin/python" -W ignore -c 'import tools, torch, torchvision, mmcv.ops, mmseg, timm, open_clip, fvcore') ||
  fail "the environment is made but doesn't import (see above)"
torch_of >"$stands"
finish
[ -n "$apart" ] || say "done: source .venv/bin/activate"
