#!/usr/bin/env bash
# Sets up whatever is missing, then runs the tests with the Vulkan validation layers on.
#
#   bash scripts/test.sh                    everything: the kernel tests under GPU-assisted validation, then the
#                                           whole suite under core and synchronization validation
#   bash scripts/test.sh -k gemv -x         one run (core and synchronization) with these pytest arguments;
#                                           paths are relative to the checkout
#
# The tests run on lavapipe, Mesa's software device; Q8TA_DEVICE names another one.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
bash "$root/scripts/setup.sh" test
cd -- "$root"
export Q8TA_DEVICE=${Q8TA_DEVICE:-llvmpipe}

run_pytest() {
    local validation=$1
    shift
    Q8TA_VALIDATION=$validation .venv/bin/python -m pytest -o testpaths=test "$@"
}

if (($# > 0)); then
    run_pytest 1 "$@"
    exit
fi

# The short run comes first, so that the last line is the summary of the whole suite.
echo "==> Kernel tests on $Q8TA_DEVICE, GPU-assisted validation"
SECONDS=0
kernels=0
run_pytest gpu -m kernels || kernels=$?
echo "==> Kernel tests took $SECONDS s"

echo "==> All tests on $Q8TA_DEVICE, core and synchronization validation"
all=0
run_pytest 1 || all=$?
if ((kernels != 0)); then
    echo "==> The kernel tests under GPU-assisted validation failed (above)" >&2
fi
exit $((all != 0 ? all : kernels))
