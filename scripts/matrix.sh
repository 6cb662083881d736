#!/usr/bin/env bash
# Tests one wheel for each Python on every torch, installed into an environment of its own, away from the sources.
#
#   bash scripts/matrix.sh python3.11:2.13.0 python3.11:2.11.0 python3.12:2.15.0
#
# Each argument is an interpreter and a version of torch. The wheel of an interpreter is built with the torch that
# is named first for it: there the tests of the vk device run, too; elsewhere the one that says what was built.
# Environments stay in build/matrix for the next run.
#
# Environment: Q8TA_MATRIX_DRIVERS   manifests of Vulkan drivers to test each combination on, with spaces between
#                                    (default: what the loader finds)
#              Q8TA_DEVICE           the device's name with those drivers (default: llvmpipe)
#              Q8TA_MATRIX_TESTS     arguments of pytest instead of the core below
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
work=$root/build/matrix
core=(linear_inputs linear_shapes requantize pack errors weight_cache kernel_choice self_test torch_integration
    export rewrite_matrix rewrite_decomposed rewrite_exported quantizer)
core_vk=(linear linear_cases creation elementwise graph serialization torch_integration)
core=("${core[@]/#/test/test_}")
read -r -a tests <<<"${Q8TA_MATRIX_TESTS:-${core[*]/%/.py}}"
core_vk=("${core_vk[@]/#/test/vk/test_vk_}")

if (($# == 0)); then
    sed -n '2,/^set /{/^#/p}' "${BASH_SOURCE[0]}"
    exit 2
fi
mkdir -p "$work"
table=$work/results.txt
: >"$table"
failed=0

# environment INTERPRETER TORCH: an environment with that torch, made if need be. Sets `python`.
environment() {
    local folder
    folder=$work/$("$1" -c 'import sys; print(sys.implementation.cache_tag)')-torch-$2
    python=$folder/bin/python
    if [[ -e $folder/complete ]]; then return; fi
    "$1" -m venv --clear "$folder"
    "$python" -m pip -q install "torch==$2" -r "$root/requirements-dev.txt"
    "$python" -m pip -q install --no-deps torchao==0.18.0
    touch "$folder/complete"
}

# run NAME PYTEST-ARGUMENTS...: runs the copied tests, and adds a line to the table.
run() {
    local name=$1 log=$work/last.log
    shift
    (cd -- "$work/away" && "$python" -m pytest -q -p no:cacheprovider "$@") 2>&1 | tee "$log" || failed=1
    printf '%-50s %s\n' "$name" "$(tail -n 1 "$log")" >>"$table"
}

declare -A wheels=()
for combination in "$@"; do
    interpreter=${combination%:*} torch=${combination##*:}
    environment "$interpreter" "$torch"
    builds_wheel=
    if [[ -z ${wheels[$interpreter]:-} ]]; then
        builds_wheel=1
        folder=$(mktemp -d "$work/wheel.XXXXXX")
        "$python" -m pip -q wheel --no-deps --no-build-isolation -w "$folder" "$root"
        wheels[$interpreter]=$(find "$folder" -name '*.whl')
    fi
    "$python" -m pip -q install --no-deps --force-reinstall "${wheels[$interpreter]}"
    "$python" -m pip check
    rm -rf -- "$work/away"
    mkdir -p "$work/away"
    cp -r "$root/test" "$root/pyproject.toml" "$work/away"
    for driver in ${Q8TA_MATRIX_DRIVERS:-default}; do
        if [[ $driver != default ]]; then export VK_DRIVER_FILES=$driver; fi
        name="$("$interpreter" -V), torch $torch, ${driver##*/}"
        run "$name" "${tests[@]}" test/test_wheel.py
        if [[ -n $builds_wheel ]]; then run "$name, vk" "${core_vk[@]/%/.py}"; fi
    done
done
echo
cat "$table"
exit "$failed"
