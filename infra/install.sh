#!/bin/sh
# Installs into .venv what the arguments name, without dependencies: by uv, which takes a fifth of pip's time, or by pip
# where uv cannot be had or finds nothing (it does not read pip's settings).
set -eu
cd "$(dirname "$0")/.."
python=.venv/bin/python

by_pip() {
    $python -m pip --version >/dev/null 2>&1 || $python -m ensurepip >/dev/null
    $python -m pip install --quiet --disable-pip-version-check --no-deps "$@"
}

runs() {
    "$1" --version >/dev/null 2>&1
}

uv=uv
runs $uv || uv=.venv/bin/uv
runs $uv || by_pip --force-reinstall -r infra/installer.lock || echo "uv cannot be had here" >&2
if runs $uv && $uv pip install --quiet --python $python --no-deps --compile-bytecode "$@"; then
    exit
fi
echo "Installing with pip instead, which takes longer" >&2
by_pip "$@"
