#!/bin/sh
# Generates the Python code of the contracts into the folder given (default: gen
# beside this file). The generator is kept apart from our environment and older
# than it, because generated code refuses a runtime older than its generator and
# other teams' runtimes are.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/gen}
venv=$here/../build/protos-venv
if [ ! -x "$venv/bin/protoc-gen-mypy" ]; then
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/pip" install --quiet grpcio-tools==1.76.0 mypy-protobuf==5.1.0 setuptools==80.9.0
fi
rm -rf "$out/quintet"
mkdir -p "$out"
cd "$here"
# shellcheck disable=SC2046  # paths of ours hold no blanks
PATH="$venv/bin:$PATH" "$venv/bin/python" -m grpc_tools.protoc -I . \
    --python_out="$out" --grpc_python_out="$out" \
    --mypy_out="$out" --mypy_grpc_out="$out" \
    $(find quintet -name '*.proto' | sort)
# Messages without a service have no stubs.
find "$out/quintet/errors" "$out/quintet/gateway/v1/kept_answer_pb2_grpc.py"* \
    "$out/quintet/gateway/v1/bill_pb2_grpc.py"* \
    "$out/quintet/gateway/v1/routing_pb2_grpc.py"* \
    -name '*_pb2_grpc.py*' -delete
for package in "$out"/quintet/*/v1; do : >"$package/py.typed"; done
