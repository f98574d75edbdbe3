#!/usr/bin/env bash
# Prove and measure rag_jax on an accelerator: bash benchmarks/accelerator.sh OUT [--minutes 8] [--parts search,train]
# For a bare machine: no network, nothing to install where jax, flax, optax and some small packages are there. OUT receives
# accelerator.json and accelerator.md. Wheels that benchmarks/accelerator_wheels.sh collected into .wheels are used if there.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
if compgen -G "$root/.wheels/*.whl" > /dev/null; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "${PYTHON:-python3}" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$root"/.wheels/*.whl
    export PYTHONPATH="$site:$PYTHONPATH"
fi
"${PYTHON:-python3}" -m benchmarks.accelerator "$@"
