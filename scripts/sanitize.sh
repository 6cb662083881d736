#!/usr/bin/env bash
# sanitize.sh address|thread [pytest arguments]: builds everything with AddressSanitizer and
# UndefinedBehaviorSanitizer, or with ThreadSanitizer, in a folder of its own (build/sanitize-*), and runs the C++
# tests and the core of the Python suite. A report ends the program that it is about, and fails the run. First each
# sanitizer must report faults that are made on purpose, in C++ and in Python.
#
# With pytest arguments, whose paths are relative to the checkout, only these tests run. Takes half an hour or more for
# each sanitizer, and 10 GB of memory.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
kind=${1:-}
case $kind in
    address) sanitizers=address,undefined ;;
    thread) sanitizers=thread ;;
    *) echo "usage: sanitize.sh address|thread [pytest arguments]" >&2 && exit 2 ;;
esac
shift
bash "$root/scripts/setup.sh" test
build=$root/build/sanitize-$kind
python=$root/.venv/bin/python
package=$build/python
deps=${Q8TA_DEPS:-}
if [[ -z $deps && -d $root/.deps/sysroot/usr ]]; then deps=$root/.deps/sysroot/usr; fi

cmake -S "$root" -B "$build" -G Ninja -DQ8TA_SANITIZE="$sanitizers" -DQ8TA_BUILD_TESTS=ON \
    -DPython_EXECUTABLE="$python" -DQ8TA_DEPS="$deps" -DQ8TA_SPIRV_DIR="${Q8TA_SPIRV_DIR:-}" >/dev/null
cmake --build "$build" --parallel "${Q8TA_JOBS:-$(nproc)}" \
    --target q8ta_tests sanitizer_check q8ta_torch_ops _C q8ta_vk_device
# The package with these libraries, all but the benchmark's.
rm -rf "$package"
mkdir -p "$package"
cp -R "$root/q8ta_ops" "$package/"
find "$package" \( -name '*.so' -o -name __pycache__ \) -prune -exec rm -rf {} +
cp "$build"/{libq8ta_vulkan,_torch_ops,_C.*,_vk_device_torch_*}.so "$package/q8ta_ops/"

# Validation layers are not instrumented, and check something else: scripts/test.sh has them on.
export Q8TA_DEVICE=${Q8TA_DEVICE:-llvmpipe} Q8TA_VALIDATION=0 Q8TA_TUNE_CACHE=/nonexistent/tuning.txt
# One test after the other: the interpreter itself, its modules and torch are not instrumented.
export PYTHONMALLOC=malloc PYTHONDONTWRITEBYTECODE=1
# OpenMP's runtime is not instrumented either, so the end of a parallel loop is invisible to ThreadSanitizer. The host
# kernel runs on threads that it does see in the C++ tests.
export OMP_NUM_THREADS=1

suppressions=$root/test/sanitizers
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export LSAN_OPTIONS=suppressions=$suppressions/leak.supp:print_suppressions=0
export TSAN_OPTIONS=halt_on_error=1:die_after_fork=0:history_size=4:print_suppressions=0
export TSAN_OPTIONS=$TSAN_OPTIONS:suppressions=$suppressions/thread.supp
# lavapipe allocates 192 bytes at a multiple of 4096 for each workgroup, which take 8 KiB. AddressSanitizer keeps freed
# memory back until it has 256 MiB of it, and counts the 192 bytes: that would be 11 GiB. So it keeps 32 MiB.
export ASAN_OPTIONS=halt_on_error=1:strict_string_checks=1:detect_leaks=1:quarantine_size_mb=32

if (($# == 0)); then
    echo "==> C++ tests"
    ctest --test-dir "$build" --output-on-failure
fi

# Python is not linked with the sanitizer's runtime, which has to come first. libstdc++ with it: else the runtime does
# not find the function that throws exceptions.
if [[ $kind == address ]]; then runtime=libasan.so; else runtime=libtsan.so; fi
compiler=${CXX:-g++}
preload="$("$compiler" -print-file-name=$runtime) $("$compiler" -print-file-name=libstdc++.so)"
# Leaks do not end a Python process (exitcode=0): most are the interpreter's. reports.py looks for ours.
reports=$build/reports
rm -rf "$reports" && mkdir -p "$reports"
export ASAN_OPTIONS=$ASAN_OPTIONS:exitcode=0:abort_on_error=1:log_path=$reports/report
# A race does not end a Python process either, but makes its status 66: one run finds all of them.
export TSAN_OPTIONS=$TSAN_OPTIONS:halt_on_error=0:log_path=$reports/report

# in_python ARGUMENT...: Python with the sanitizer, in a folder where q8ta_ops is the package built here.
in_python() {
    (cd -- "$package" && LD_PRELOAD=$preload PYTHONPATH=$package "$python" "$@")
}
# Takes away what the processes so far have reported, those that tests have started, too. Fails if it is our fault.
take_reports() {
    local files status=0
    mapfile -t files < <(find "$reports" -type f)
    "$python" "$suppressions/reports.py" "${files[@]}" || status=$?
    rm -f "${files[@]}"
    return $status
}
fail() {
    echo "sanitize.sh: $*" >&2
    exit 1
}

if (($# == 0)); then
    echo "==> Faults in Python, which must be reported"
    # must_report FAULT REPORT: and it lies in our code.
    must_report() {
        in_python "$suppressions/seeded_fault.py" "$1" || true
        grep -hE "$2" "$reports"/* || fail "$1 went unnoticed"
        grep -qE "q8ta::kernels::(host_pack|HostPackedWeights)" "$reports"/* ||
            fail "something else than $1 was reported"
        if take_reports >/dev/null; then fail "$1 would not have failed"; fi
    }
    if [[ $kind == address ]]; then
        must_report over_read "ERROR: AddressSanitizer: heap-buffer-overflow"
        must_report leak "ERROR: LeakSanitizer: detected memory leaks"
    else
        must_report race "WARNING: ThreadSanitizer: data race"
    fi
fi

# Left out: what starts processes by the dozen, compiles (torch.compile, AOTInductor), quantizes whole models, wants
# the validation layers or measures time and memory. None of it is other C++.
core=(test_host_kernel test_linear_inputs test_linear_shapes test_pack test_requantize test_errors test_limits
    test_runtime test_weight_cache test_kernel_choice test_tuning)
core_of_vk=(test_vk_views test_vk_linear test_vk_linear_cases test_vk_pack test_vk_elementwise test_vk_maximum
    test_vk_quantization test_vk_indexing test_vk_graph test_vk_graph_capture test_vk_event test_vk_threads test_vk_memory
    test_vk_weight_cache)
core_files=("${core[@]/#/$root/test/}")
vk_files=("${core_of_vk[@]/#/$root/test/vk/}")
core_files=("${core_files[@]/%/.py}")
vk_files=("${vk_files[@]/%/.py}")
# A test takes ten times as long as without a sanitizer.
# AddressSanitizer keeps freed memory back for a while: no address comes again soon, and resident memory grows.
# The host kernel's test_threads gives OpenMP threads after all, and ThreadSanitizer takes each parallel loop for a race.
if [[ $kind == address ]]; then
    left_out="memory_is_flat or no_growth or (at_the_same_address and not in_threads) or storage_emptied_and_filled_again"
else
    left_out="test_host_kernel and test_threads"
fi
pytest=(-m pytest -c "$root/pyproject.toml" --rootdir "$root" -q -p no:cacheprovider -o timeout=1500)
failed=0
run_tests() {
    in_python "${pytest[@]}" -k "not ($left_out)" "$@" || failed=1
    take_reports || failed=1
}
if (($# > 0)); then
    arguments=()
    for argument in "$@"; do
        if [[ -e $root/${argument%%::*} ]]; then argument=$root/$argument; fi
        arguments+=("$argument")
    done
    run_tests "${arguments[@]}"
    exit "$failed"
fi
echo "==> Core of the Python tests"
run_tests "${core_files[@]}"
echo "==> Core of the tests of the vk device"
run_tests "${vk_files[@]}"
exit "$failed"
