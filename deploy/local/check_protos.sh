#!/bin/sh
# Checks the contracts: style, format, no break against the commit before, and
# generated code that is what the generator makes of them. Works offline once the
# generator is there.
set -eu
cd "$(dirname "$0")/../.."
buf=.venv/bin/buf
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$buf" lint
"$buf" format --diff --exit-code

# The commit that this one builds on: where a branch left main, else the last one.
base=$(git merge-base HEAD main 2>/dev/null || true)
if [ "$base" = "$(git rev-parse HEAD 2>/dev/null || true)" ]; then
    base=$(git rev-parse --verify --quiet HEAD~1 || true)
fi
if [ -n "$base" ] && git cat-file -e "$base:buf.yaml" 2>/dev/null; then
    mkdir "$scratch/before"
    git archive "$base" buf.yaml protos | tar -x -C "$scratch/before"
    "$buf" breaking --against "$scratch/before"
else
    echo "No earlier contracts to compare with: the check for breaks is skipped."
fi

PYTHON=.venv/bin/python sh protos/generate.sh "$scratch/gen"
if ! diff -r --exclude=__pycache__ "$scratch/gen/quintet" protos/gen/quintet; then
    echo >&2 "protos/gen is not what the contracts say: run 'make protos'"
    exit 1
fi
echo "The contracts are in order."
