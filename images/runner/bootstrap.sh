#!/bin/sh
# Makes the runner image's root file system from Debian packages, for sites without an image registry.
#
#   bootstrap.sh ROOTFS.tar      the root file system, to import with the instructions of the Dockerfile's last stage
#   bootstrap.sh --wheels DIR    only the pinned wheels, for a build that the Dockerfile describes
#
# `ade image build` runs this. Settings, all optional, from the environment:
#
#   ADE_DEBIAN_MIRROR           e.g. https://mirror.example/debian; default: the host's own when it is Debian, else deb.debian.org
#   ADE_DEBIAN_SECURITY_MIRROR  default: ADE_DEBIAN_MIRROR with /debian replaced by /debian-security; "none" leaves it out
#   ADE_INDEX_URL               Python package index that has the pinned wheels; default: pip's own configuration
#   ADE_WHEELHOUSE              a directory that is asked for the wheels before any index
#   ADE_CA_BUNDLE               PEM file of the authorities that pip and apt trust, e.g. behind a TLS-inspecting proxy
#   ADE_ARCHITECTURE            amd64 or arm64; default: this machine's
set -eu
umask 022
export LC_ALL=C

suite=bookworm
context=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

say() { printf 'bootstrap: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
absolute() { case $1 in /*) printf '%s' "$1" ;; *) printf '%s/%s' "$PWD" "$1" ;; esac; }

case $#-${1-} in
2---wheels) mode=wheels out=$(absolute "$2") ;;
1--*) die "unknown option $1; usage: bootstrap.sh ROOTFS.tar | bootstrap.sh --wheels DIR" ;;
1-?*) mode=rootfs out=$(absolute "$1") ;;
*) die 'usage: bootstrap.sh ROOTFS.tar | bootstrap.sh --wheels DIR' ;;
esac
[ -z "${ADE_CA_BUNDLE-}" ] || [ -r "$ADE_CA_BUNDLE" ] || die "ADE_CA_BUNDLE: cannot read $ADE_CA_BUNDLE"

case ${ADE_ARCHITECTURE:-$(uname -m)} in
x86_64 | amd64) machine=x86_64 architecture=amd64 ;;
aarch64 | arm64) machine=aarch64 architecture=arm64 ;;
*) die "no pinned wheels for ${ADE_ARCHITECTURE:-$(uname -m)}; amd64 and arm64 are supported" ;;
esac

# --- Wheels ----------------------------------------------------------------------------------------------------------
# Whatever the source, pip takes only files whose digests are in requirements.lock.
download() {
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
        --implementation cp --python-version 3.11 --abi cp311 --abi abi3 --abi none \
        --platform "manylinux_2_28_$machine" --platform "manylinux_2_17_$machine" --platform "manylinux2014_$machine" \
        --platform any --dest "$1" --requirement "$context/requirements.lock" "$source" "$where"
}
fetch_wheels() {
    source=--find-links where=${ADE_WHEELHOUSE-}
    [ -z "$where" ] || ! (export PIP_NO_INDEX=1 && download "$1") 2>/dev/null || return 0
    if [ -n "${ADE_INDEX_URL-}" ]; then
        source=--index-url where=$ADE_INDEX_URL
    else
        source=--retries where=2
    fi
    [ -z "${ADE_CA_BUNDLE-}" ] || export PIP_CERT="$ADE_CA_BUNDLE"
    download "$1" >&2 ||
        die 'could not fetch the pinned wheels; point ADE_INDEX_URL or ADE_WHEELHOUSE at a place that has them, and ADE_CA_BUNDLE at the authorities to trust'
}
if [ "$mode" = wheels ]; then
    fetch_wheels "$out"
    exit 0
fi

# The compiled part of the runner is for one architecture; the byte is the field e_machine of its ELF header.
case $(od -An -tx1 -j18 -N1 "$context/ade_native.abi3.so" | tr -d ' ') in
3e) compiled=amd64 ;;
b7) compiled=arm64 ;;
*) compiled=unknown ;;
esac
[ "$compiled" = "$architecture" ] ||
    die "this ade is for $compiled and has no runner for $architecture; build the image with an ade that was compiled for $architecture"

# --- Host tools ------------------------------------------------------------------------------------------------------
# shellcheck source=/dev/null
host_id=$(. /etc/os-release 2>/dev/null && printf '%s %s' "${ID-}" "${ID_LIKE-}") || host_id=
missing=
command -v mmdebstrap >/dev/null || missing="$missing mmdebstrap"
python3 -m pip --version >/dev/null 2>&1 || missing="$missing python3-pip"
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing="$missing debian-archive-keyring"
if [ -n "$missing" ]; then
    case "$(id -u) $host_id" in
    "0 "*debian*)
        say "installing on this host:$missing"
        # shellcheck disable=SC2086 # a list of package names, meant to split
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >&2 ||
            die "could not install$missing; install them yourself and try again"
        ;;
    *debian*) die "this needs$missing; run: sudo apt-get install$missing" ;;
    *) die "this needs$missing, which come with Debian and Ubuntu; on other systems use a registry (ADE_BASE_IMAGE)" ;;
    esac
fi

# --- Sources ---------------------------------------------------------------------------------------------------------
# The URIs of the host's apt sources, in both of apt's formats: deb822 (.sources) and one line per source (.list).
host_uri() {
    cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list /etc/apt/sources.list 2>/dev/null |
        sed -n -e 's/^URIs:[[:space:]]*\([^[:space:]]*\).*/\1/p' \
            -e 's/^deb[[:space:]]\{1,\}\(\[[^]]*\][[:space:]]*\)\{0,1\}\([^[:space:]]*\).*/\2/p' |
        grep -E "^https?://[^ ]*/$1/?\$" | head -n 1
}
mirror=${ADE_DEBIAN_MIRROR-}
security=${ADE_DEBIAN_SECURITY_MIRROR-}
if [ -z "$mirror" ]; then
    case $host_id in
    'debian '*)
        mirror=$(host_uri debian) || true
        [ -n "$security" ] || security=$(host_uri debian-security) || true
        ;;
    esac
    mirror=${mirror:-http://deb.debian.org/debian}
fi
[ -n "$security" ] || security=$(printf '%s' "$mirror" | sed 's,/debian\(/\|$\),/debian-security\1,')
[ "$security" != "$mirror" ] || security=none
options='signed-by=/usr/share/keyrings/debian-archive-keyring.gpg'
# A snapshot is meant to be old: its Release files have expired.
case $mirror in *snapshot.debian.org*) options="$options check-valid-until=no" ;; esac

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
chmod 755 "$work"
{
    printf 'deb [%s] %s %s main\n' "$options" "$mirror" "$suite"
    printf 'deb [%s] %s %s-updates main\n' "$options" "$mirror" "$suite"
    [ "$security" = none ] || printf 'deb [%s] %s %s-security main\n' "$options" "$security" "$suite"
} >"$work/sources.list"

# --- Root file system ------------------------------------------------------------------------------------------------
# A scratch Debian is extracted, never configured: no maintainer script runs. Its own Python then picks, from inside, what
# the image gets. Extract hooks are the ones that mmdebstrap runs in this variant, as root or in user namespaces alike.
mkdir "$work/ade"
say 'fetching the pinned wheels'
fetch_wheels "$work/ade/wheels"
cp -R "$context/ade_runner" "$context/ade_native.abi3.so" "$context/boot.py" "$context/assemble.py" "$work/ade/"
set -- --variant=extract --format=null --architectures="$architecture" \
    --include=python3-minimal,libpython3.11-stdlib,libc-bin,libstdc++6,libgcc-s1,zlib1g,libexpat1,ca-certificates,tzdata \
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "3"'
[ -z "${ADE_CA_BUNDLE-}" ] || set -- "$@" --aptopt="Acquire::https::CAInfo \"$ADE_CA_BUNDLE\""
say "extracting Debian $suite from $mirror"
# shellcheck disable=SC2016 # mmdebstrap hands its hooks the root as their $1
mmdebstrap "$@" \
    --extract-hook="copy-in $work/ade /" \
    --extract-hook='env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 PYTHONHASHSEED=0 chroot "$1" /usr/bin/python3.11 -S -s -P -B /ade/assemble.py --context /ade --wheels /ade/wheels --root /rootfs --tar /rootfs.tar' \
    --extract-hook="download /rootfs.tar $work/rootfs.tar" \
    "$suite" - "$work/sources.list" >&2 ||
    die "see above; if packages could not be fetched, point ADE_DEBIAN_MIRROR at a mirror of Debian $suite that this host reaches"
mv -- "$work/rootfs.tar" "$out"
