#!/usr/bin/env bash
# Runs the examples against a private server with a real daemon. Needs python3 with venv; what else they need is installed into
# target/, at the versions of requirements.txt. Arguments go to unittest: examples/test.sh Python.test_a_cancelled_task_is_stopped
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${ROWBEAT:-}" ]; then
    cargo build --locked --quiet
    ROWBEAT=$PWD/target/debug/rowbeat
fi
export ROWBEAT PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$PWD/examples/python:$PWD/examples/django

venv=target/examples-venv
if ! cmp -s examples/requirements.txt "$venv/installed.txt"; then
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r examples/requirements.txt
    cp examples/requirements.txt "$venv/installed.txt"
fi
exec "$venv/bin/python" examples/tests/test_examples.py "$@"
