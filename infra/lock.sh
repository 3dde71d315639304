#!/bin/sh
# Resolves the floors of pyproject.toml into the three lock files, and what installs them. All go with --no-deps.
set -eu
cd "$(dirname "$0")/.."

resolve() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate "$@"
}

resolve --extra embedding --extra local pyproject.toml -o requirements.lock
resolve --extra embedding -c requirements.lock pyproject.toml -o infra/container/requirements.lock
resolve --extra embedding --extra local --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock
echo uv | resolve - -o infra/installer.lock
