#!/usr/bin/env bash
# Measures which lines of csrc/ and q8ta_ops/ the tests, in C++ and in Python, run, lists the files with lines that
# none of them does, and fails where either total is below 90 %. No file is left out. What stays uncovered on
# lavapipe, and why:
#   kernels/host_gemm_amx.cpp, _avx512.h, _avx_vnni.cpp,       instructions that the processor lacks
#     what shifts by 128 in host_gemm_blocks.h
#   parts of vulkan/device_info.cpp, selection.cpp,            cooperative matrices, hardware GPUs, NVIDIA's driver: tests
#     pipeline.cpp, device.cpp, kernels/linear_choice.cpp,     on such a device run them
#     linear_gemm_coopmat.cpp, benchmark/roofs.cpp
#   parts of vulkan/error.cpp, fence.cpp, instance.cpp         errors that no driver here returns, a fence still at work
#     and buffer.cpp                                           at once, a machine without Vulkan or its layers
#   vulkan/fork.cpp                                            forked children, which end by _exit: nothing is written
#   device/hooks.cpp, allocator.cpp, pinned_memory.cpp,        what torch's interfaces require and torch does not call
#     guard.cpp
#   lines of device/arithmetic.cpp, elementwise.cpp,           forms of operators that go to the CPU, as other forms do
#     fill.cpp, reduction.cpp
#   parts of kernels/tuning_file.cpp                           the folder that is used by default, errors of locks
#   bindings/module.cpp, benchmark/module.cpp                  names of arguments, which are not counted; errors
#   q8ta_ops/bench/cuda.py, plots.py, roofs.py, run.py, parts  need CUDA, matplotlib, cooperative matrices
#   q8ta_ops/bench/wall.py, parts                              serve scripts of benchmarks/
#   q8ta_ops/inductor.py, parts                                what Inductor asks of devices that it generates code for
#   q8ta_ops/program_file/, single lines                       refusals of files that no test damages in just that way
#
#   bash scripts/coverage.sh                  the whole suite, without GPU-assisted validation (40 minutes on 2 cores)
#   bash scripts/coverage.sh test/vk          the tests that pytest's arguments name; counts add up with what was
#                                             measured before, until build/coverage is removed
#
# Environment: Q8TA_DEVICE   the device (default llvmpipe)
#              JOBS          tests at once (default: as many as cores)
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
work=$root/build/coverage
minimum=90

bash "$root/scripts/setup.sh" test
python=$root/.venv/bin/python
"$python" -c 'import coverage, gcovr' 2>/dev/null ||
    "$python" -m pip --disable-pip-version-check -q install 'coverage>=7.10' gcovr

# The libraries, with counters and without optimization, in a package of their own beside a copy of the tests.
# Q8TA_DEPS is for the tests, too: without its headers those that make Vulkan calls fail are skipped.
deps=$root/.deps/sysroot/usr
[[ -d $deps ]] || deps=
export Q8TA_DEPS=${Q8TA_DEPS:-$deps}
cmake -S "$root" -B "$work/cmake" -G Ninja "-DPython_EXECUTABLE=$python" "-DQ8TA_DEPS=$Q8TA_DEPS" \
    -DQ8TA_BUILD_TESTS=ON -DCMAKE_BUILD_TYPE=Debug '-DCMAKE_CXX_FLAGS_DEBUG=-O0 -DNDEBUG --coverage -fprofile-update=atomic'
cmake --build "$work/cmake" --target all q8ta_tests
# Counts of what has been compiled anew since they were made fit nothing, and gcovr stops at them.
while IFS= read -r -d '' counts; do
    if [[ ${counts%.gcda}.gcno -nt $counts ]]; then rm -- "$counts"; fi
done < <(find "$work/cmake" -name '*.gcda' -print0)
mkdir -p "$work/run"
cd -- "$work/run"
for part in q8ta_ops test examples benchmarks scripts README.md pyproject.toml; do
    rm -rf -- "./$part"
    cp -r "$root/$part" .
done
rm -f -- q8ta_ops/*.so
cmake --install "$work/cmake" --prefix "$work/run/q8ta_ops" --component python >/dev/null

cat >coverage.ini <<INI
[run]
source = q8ta_ops
parallel = true
patch = subprocess, _exit
[report]
exclude_also =
    if TYPE_CHECKING:
skip_covered = true
show_missing = true
INI

failed=0
# Not run: what looks at the checkout or at libraries as they are installed, and forks beside a running thread, whose
# child waits for ever for coverage's own lock.
left_out="named_files_exist or no_path_of_the_build_machine or a_fork_while_a_thread_opens"
measure() {
    Q8TA_DEVICE=${Q8TA_DEVICE:-llvmpipe} PYTHONPATH=$work/run "$python" -m coverage run --rcfile=coverage.ini -m pytest \
        -q -p no:cacheprovider -o timeout=900 -n "${JOBS:-auto}" --dist worksteal -k "not ($left_out)" "$@" || failed=$?
}
if (($# > 0)); then
    measure "$@"
else
    Q8TA_DEVICE=${Q8TA_DEVICE:-llvmpipe} Q8TA_VALIDATION=1 ctest --test-dir "$work/cmake" --output-on-failure || failed=$?
    measure test/vk # a process of its own: enabling the device changes torch
    measure test
fi

echo "==> Python"
"$python" -m coverage combine --rcfile=coverage.ini --append -q || true # nothing new to combine is no error
"$python" -m coverage report --rcfile=coverage.ini --fail-under=$minimum || failed=$?
echo "==> C++"
"$python" -m gcovr --root "$root" --object-directory "$work/cmake" --filter "$root/csrc/" --merge-lines \
    --gcov-ignore-parse-errors=suspicious_hits.warn_once_per_file \
    --sort uncovered-number --fail-under-line $minimum "$work/cmake" || failed=$?
exit "$failed"
