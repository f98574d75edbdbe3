#!/usr/bin/env bash
# Collect what a machine without a network lacks, into .wheels: bash benchmarks/accelerator_wheels.sh NAME[==VERSION] ...
# Name each package and whatever it needs. PYTHON_VERSION (3.12) is that machine's. benchmarks/accelerator.sh uses them.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# = 0 ]; then
    echo "name the packages that are missing there, as in: bash benchmarks/accelerator_wheels.sh optax jaxtyping" >&2
    exit 2
fi
platforms=(--platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64)
"${PYTHON:-python3}" -m pip download --quiet --no-deps --only-binary=:all: --implementation cp \
    --python-version "${PYTHON_VERSION:-3.12}" "${platforms[@]}" --dest .wheels "$@"
size=$(du --summarize --bytes .wheels | cut -f1)
echo "$size bytes in .wheels"
if [ "$size" -gt $((64 * 2 ** 20)) ]; then
    echo "more than 64 MB; delete what is not needed from .wheels" >&2
    exit 1
fi
