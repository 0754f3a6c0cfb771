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
# tested.lock), otherwise the versions that requirements.txt admits, with the tested torch. mmcv-full is compiled once
# for each Python and torch (5 to 15 minutes on 2 cores). Clones share environments. Interrupted? Run it again.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${CLIPRC_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/clip-rc}
lock="$repo/tools/environment/tested.lock"

say() { printf 'setup_env: %s\n' "$*"; }
fail() { printf 'setup_env: %s\n' "$@" >&2; exit 1; }
case ${1:-} in
  '') ;;
  --apart) exec 3>&1 1>&2 ;; # only the folder goes to stdout
  -h | --help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 0 ;;
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

rm -f "$complete"
if ! "$env/bin/python" -m pip --version >/dev/null 2>&1; then
  rm -rf "$env"
  "$python" -m venv "$env"
fi
pip() { "$env/bin/python" -m pip --disable-pip-version-check "$@"; }

say "environment: $env"
say "1/3 PyTorch (about 5 GB unpacked) and all other packages but mmcv-full"
if [ -n "$tested" ]; then
  pip install --quiet --progress-bar off --require-hashes -r <(all_but mmcv-full)
else
  say "$("$python" -V) with torch $torch is not the tested set: versions that requirements.txt admits, hashes unchecked"
  pip install --quiet --progress-bar off "torch==$torch" -r <(grep -v '^mmcv-full' "$repo/requirements.txt") \
    -r "$repo/tests/requirements.txt"
fi

wheels="$cache/wheels/py$version-torch$(torch_of)"
mkdir -p "$wheels"
if ! compgen -G "$wheels/mmcv_full-*.whl" >/dev/null; then
  building=$(mktemp -d "$cache/wheels/building.XXXX")
  trap 'rm -rf "$building"' EXIT
  say "2/3 compiling mmcv-full (once; 5 to 15 minutes on 2 cores; log: $building/log)"
  # CPU operators only, as no CUDA operator is used: needs no nvcc. Without pip's cache, which would give the wheel to an
  # environment with another torch. mmcv-full asks for C++17, torch's headers may for a later one: the last option wins.
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
# --force-reinstall: the same version may be installed, compiled for another torch.
pip install --quiet --no-deps --force-reinstall --no-index "$wheels"/mmcv_full-*.whl
[ -n "$tested" ] || pip install --quiet --progress-bar off "torch==$torch" -r "$repo/requirements.txt" # its dependencies
(cd "$repo" && "$env/bin/python" -W ignore -c 'import tools, torch, torchvision, mmcv.ops, mmseg, timm, open_clip, fvcore') ||
  fail "the new environment cannot import a package, see above"
torch_of >"$complete"
finish
