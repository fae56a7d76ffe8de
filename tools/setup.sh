#!/usr/bin/env bash
# Makes .venv: a Python environment with the pinned dependencies, zoo, and every plugin in plugins/.
#
#     tools/setup.sh
#
# Safe to repeat: it does nothing when what it depends on has not changed since it last succeeded.
# PYTHON=python3.12 chooses the interpreter, VENV=elsewhere the folder.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
stamp=$venv/.installed
needs_gb=9 # 6.0 measured after installing, and room for what is unpacked
shopt -s nullglob
inputs=(pyproject.toml setup.py zoo/nn/native/*.[ch] constraints.txt tools/setup.sh tools/references.txt plugins/*/pyproject.toml)

say() { printf 'zoo: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
works() { "$1" -c "$2" >/dev/null 2>&1; }

# The name of each input is part of the stamp, so that a plugin that came or went is noticed.
wanted=$(sha256sum "${inputs[@]}")
has_torch="import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is None)"
is_current() {
    [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && works "$venv/bin/python" "import zoo; $has_torch"
}

find_python() {
    local name
    for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python3.10}; do
        if works "$name" "import sys; sys.exit(sys.version_info < (3, 10))"; then
            command -v "$name"
            return
        fi
    done
    die "Python 3.10 or newer is needed${PYTHON:+ and $PYTHON is not}; install one, or name it: make PYTHON=/path/to/python."
}

make_venv() {
    local python
    python=$(find_python)
    if works "$python" "import venv, ensurepip"; then
        "$python" -m venv "$venv"
    elif command -v uv >/dev/null; then
        uv venv --seed --quiet --allow-existing --python "$python" "$venv"
    else
        die "$python has no venv module; on Debian and Ubuntu: sudo apt-get install python3-venv."
    fi
}

check_disk() {
    local free_kb
    mkdir -p "$(dirname "$venv")"
    free_kb=$(df -Pk "$(dirname "$venv")" | awk 'NR == 2 {print $4}')
    ((free_kb >= needs_gb * 1024 * 1024)) ||
        die "$((free_kb / 1024 / 1024)) GB are free for $venv and $needs_gb GB are needed; free some, or say VENV=/other/disk/venv."
}

# The project, its tests' needs, and every plugin, all editable.
install() {
    local targets=(-e ".[test]") plugin uv=""
    for plugin in plugins/*/pyproject.toml; do
        targets+=(-e "./$(dirname "$plugin")")
    done
    if command -v uv >/dev/null; then
        uv=$(command -v uv)
    elif "$venv/bin/python" -m pip install --quiet --disable-pip-version-check uv; then
        uv=$venv/bin/uv
    fi
    if [[ -n $uv ]] && "$uv" pip install --python "$venv/bin/python" -c constraints.txt "${targets[@]}"; then
        return
    fi
    say "uv is not available or failed; pip does the same, more slowly."
    "$venv/bin/python" -m pip install --disable-pip-version-check -c constraints.txt "${targets[@]}"
}

# What tests compare with and whose own pins would take everything else back in time.
install_references() {
    if command -v uv >/dev/null; then
        uv pip install --quiet --python "$venv/bin/python" --no-deps -r tools/references.txt
    else
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r tools/references.txt
    fi
}

is_current && exit 0
if [[ -e $venv/bin/python ]]; then
    works "$venv/bin/python" "import sys; sys.exit(sys.version_info < (3, 10))" ||
        die "$venv holds a Python that does not run or is older than 3.10; remove $venv and run this again."
fi
if ! works "$venv/bin/python" "$has_torch"; then
    check_disk
    say "first set-up. It downloads several GB (PyTorch with CUDA, and what constraints.txt lists; 6 GB installed)"
    say "from your package index (pypi.org unless pip is told otherwise) into $(realpath -m "$venv")."
    say "It takes a minute with a fast network, ten with a slow one; it may be interrupted and repeated."
fi
mkdir -p "$venv"
exec 9>"$venv/.setup-lock" # .lock is what uv itself takes
if command -v flock >/dev/null && ! flock -n 9; then
    say "another set-up of $venv is under way; waiting for it."
    flock 9
    is_current && exit 0
fi
[[ -e $venv/bin/python ]] || make_venv
rm -f "$stamp"
install
install_references
works "$venv/bin/python" "import zoo, torch" || die "the installation went through, but zoo does not import; see: $venv/bin/python -c 'import zoo, torch'."
printf '%s\n' "$wanted" >"$stamp"
say "set-up done: $venv/bin/zoo"
