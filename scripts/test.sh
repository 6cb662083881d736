#!/usr/bin/env bash
# Sets up whatever is missing, then runs the tests with the Vulkan validation layers on.
#
#   bash scripts/test.sh                    everything: the C++ tests; kernel tests, those of the vk device, too,
#                                           under GPU-assisted validation; the tests of the vk device (a process
#                                           of its own: enabling it changes torch) and the rest, both under core
#                                           and synchronization validation
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

echo "==> C++ tests on $Q8TA_DEVICE"
build=build/cmake-$(.venv/bin/python -c 'import sys; print(sys.implementation.cache_tag)')
cmake -DQ8TA_BUILD_TESTS=ON "$build" >/dev/null
cmake --build "$build" --target q8ta_tests
Q8TA_VALIDATION=1 ctest --test-dir "$build" --output-on-failure

# Tests that use little of the machine each: as many at once as there are cores. The short runs come first, so
# that the last line is the summary of most of the suite.
export OMP_WAIT_POLICY=PASSIVE # threads that spin would take the cores from the other tests
failed=0
run_stage() {
    local title=$1 start=$SECONDS
    shift
    echo "==> $title on $Q8TA_DEVICE"
    run_pytest "$@" -n auto --dist worksteal --durations=10 --durations-min=5 || failed=$?
    echo "==> That took $((SECONDS - start)) s"
}
run_stage "Kernel tests, GPU-assisted validation" gpu -m kernels
# Under GPU-assisted validation a tiled GEMM takes seconds to compile: one of its tests is enough here.
run_stage "Kernel tests of the vk device, GPU-assisted validation" gpu \
    test/vk/test_vk_views.py test/vk/test_vk_pack.py test/vk/test_vk_elementwise.py test/vk/test_vk_linear_cases.py \
    -k "vk_views or strides_of_results or results_in_views or (test_integers and int8) or \
        (vk_pack and test_sizes) or (gemv_size_grid and subgroup-dot) or test_size_grid[subgroup-dot-9]"
run_stage "Tests of the vk device, core and synchronization validation" 1 test/vk
run_stage "All other tests, core and synchronization validation" 1
exit "$failed"
