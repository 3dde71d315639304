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

uv=$(command -v uv || echo .venv/bin/uv)
[ -x "$uv" ] || by_pip -r infra/installer.lock || echo "uv cannot be had here" >&2
if [ -x "$uv" ] && "$uv" pip install --quiet --python $python --no-deps --compile-bytecode "$@"; then
    exit
fi
echo "Installing with pip instead" >&2
by_pip "$@"
