#!/usr/bin/env bash
# Debian 12 only: puts the Vulkan headers, volk, VMA, glslang and spirv-val of Debian 13 under .deps/sysroot of the
# checkout.
#
# Debian 12 has no VMA, Vulkan headers that are too old, and a glslang that does not know cooperative matrices. Debian
# 13's packages hold headers that work on Debian 12 as well, and programs that run there with their own C library. They are downloaded with a private apt configuration: the machine's own mirror, proxy and keys,
# but another suite, and state and cache directories of its own. The system's apt sources and packages are not
# touched, no root is needed, and apt checks the signatures as always.
set -euo pipefail

suite=trixie
debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg
headers=(libvulkan-dev libvulkan-volk-dev libvulkan-memory-allocator-dev)
programs=(glslang-tools spirv-tools libc6 libgcc-s1 libstdc++6)

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
deps=$root/.deps
sysroot=$deps/sysroot

# The sysroot is moved into place as the last step, so if it exists it is complete.
if [[ -x $sysroot/usr/bin/spirv-val ]]; then
    echo "Vulkan headers, volk, VMA, glslang and spirv-val: already in $sysroot"
    exit 0
fi

fail() {
    echo "fetch_from_debian13.sh: $*" >&2
    echo "Instead, you can unpack or install Vulkan headers (1.3.250 or newer), volk and VMA 3 anywhere and set" >&2
    echo "Q8TA_DEPS to the directory that holds their include/." >&2
    exit 1
}

# shellcheck source=/dev/null
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
[[ $codename == bookworm ]] || fail "made for Debian 12 (bookworm), this is '$codename': install its own packages"

mkdir -p "$deps"
work=$(mktemp -d "$deps/fetch.XXXXXX")
trap 'rm -rf -- "$work"' EXIT

# private_apt DIR URI ARGUMENTS...: apt-get that knows one repository and keeps everything in DIR.
private_apt() {
    local dir=$1 uri=$2
    shift 2
    mkdir -p "$dir"/{lists/partial,archives/partial,empty}
    : >"$dir/status"
    {
        printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n' "$uri" "$suite"
        printf 'Architectures: %s\nTargets: Packages\n' "$(dpkg --print-architecture)"
        # Debian 13 is signed with the keys of Debian 12 too, so every Debian 12 can check it. Without this keyring
        # apt uses the keys that the machine trusts for every repository.
        if [[ -e $debian_keyring ]]; then printf 'Signed-By: %s\n' "$debian_keyring"; fi
    } >"$dir/only.sources"
    # Read after the machine's own configuration, whose proxy and network settings therefore stay. Its hooks clean
    # up after the system's apt and are no business of ours. Running as root, apt would download as the user _apt,
    # who cannot enter a checkout below /root.
    cat >"$dir/apt.conf" <<CONF
Dir::State "$dir";
Dir::State::lists "$dir/lists";
Dir::State::status "$dir/status";
Dir::Cache "$dir";
Dir::Cache::archives "$dir/archives";
Dir::Etc::sourcelist "$dir/only.sources";
Dir::Etc::sourceparts "$dir/empty";
Dir::Etc::preferences "$dir/empty/none";
Dir::Etc::preferencesparts "$dir/empty";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::Languages;
Acquire::Languages { "none"; };
Acquire::Retries "3";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
CONF
    (cd "$dir" && apt-get -q -c "$dir/apt.conf" "$@" </dev/null)
}

# Every repository of the machine that serves this release's main component. apt itself reads the machine's sources,
# whatever form they have. ($(...) is apt's own format language here, not a shell expansion.)
# shellcheck disable=SC2016
repositories=$(
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' |
        awk -v codename="$codename" \
            '($2 == codename || $2 == "oldstable") && $3 == "main" && !seen[$1]++ { print $1 }'
)
[[ -n $repositories ]] || fail "found no repository of $codename main among the machine's apt sources"

download() {
    local uri dir=$work/apt
    while read -r uri; do
        echo "Fetching ${headers[*]} ${programs[*]} of $suite from $uri"
        rm -rf -- "$dir"
        private_apt "$dir" "$uri" update && private_apt "$dir" "$uri" download "${headers[@]}" "${programs[@]}" && return 0
    done <<<"$repositories"
    return 1
}
download || fail "none of the machine's apt repositories delivered the packages of $suite"

for package in "${headers[@]}"; do
    dpkg -x "$work/apt/${package}"_*.deb "$work/sysroot"
done
for package in "${programs[@]}"; do
    dpkg -x "$work/apt/${package}"_*.deb "$work/sysroot/debian13"
done

# The programs start through Debian 13's own dynamic loader, which finds its own C library.
cd "$work/sysroot/debian13"
loader=$(find usr -name 'ld-linux*.so.*' | head -n 1)
libraries=$(dirname "$(find usr -name libc.so.6 | head -n 1)")
mkdir -p ../usr/bin
for program in glslang spirv-val; do
    cat >"../usr/bin/$program" <<SCRIPT
#!/bin/sh
root=\$(dirname "\$(readlink -f "\$0")")/../../debian13
exec "\$root/$loader" --library-path "\$root/$libraries" "\$root/usr/bin/$program" "\$@"
SCRIPT
    chmod +x "../usr/bin/$program"
    "../usr/bin/$program" --version >/dev/null || fail "$program of $suite does not run here"
done
cd "$root"
# Links to libraries of packages that are not here; nothing is linked against them (volk loads Vulkan at run time).
find "$work/sysroot" -xtype l -delete
rm -rf -- "$sysroot"
mv -- "$work/sysroot" "$sysroot"
echo "Vulkan headers, volk, VMA, glslang and spirv-val: unpacked into $sysroot"
