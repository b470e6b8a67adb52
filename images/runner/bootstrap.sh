#!/bin/sh
# Makes the runner image's root file system from Debian packages, for sites without an image registry.
#
#   bootstrap.sh ROOTFS.tar
#
# `ade image build` runs this and imports the result. By hand, import it with the instructions of the Dockerfile's last stage.
#
#   ADE_DEBIAN_MIRROR           e.g. https://mirror.example/debian; default: the host's own when it is Debian, else deb.debian.org
#   ADE_DEBIAN_SECURITY_MIRROR  default: ADE_DEBIAN_MIRROR with /debian replaced by /debian-security; "none" leaves it out
#   ADE_INDEX_URL               Python package index for the pinned wheels; default: pip's own configuration
#   ADE_WHEELHOUSE              a directory with the pinned wheels: no index is asked
#   ADE_CA_BUNDLE               PEM file of the authorities that pip and apt trust, e.g. behind a TLS-inspecting proxy
set -eu
umask 022
export LC_ALL=C

suite=bookworm
context=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

say() { printf 'bootstrap: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[ $# -eq 1 ] || die 'usage: bootstrap.sh ROOTFS.tar'
out=$1
case $out in /*) ;; *) out=$PWD/$out ;; esac

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
    *) die "this needs$missing; they come with Debian and Ubuntu. Elsewhere, build where a registry can be reached" ;;
    esac
fi

# --- Sources ---------------------------------------------------------------------------------------------------------
# The URIs of the host's apt sources, in both of apt's formats: deb822 (.sources) and one line per source (.list).
host_uris() {
    cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list /etc/apt/sources.list 2>/dev/null |
        sed -n -e 's/^URIs:[[:space:]]*\([^[:space:]]*\).*/\1/p' \
            -e 's/^deb[[:space:]]\{1,\}\(\[[^]]*\][[:space:]]*\)\{0,1\}\([^[:space:]]*\).*/\2/p' || true
}
mirror=${ADE_DEBIAN_MIRROR-}
security=${ADE_DEBIAN_SECURITY_MIRROR-}
if [ -z "$mirror" ]; then
    case $host_id in
    'debian '*)
        mirror=$(host_uris | grep -E '^https?://[^ ]*/debian/?$' | head -n 1) || true
        [ -n "$security" ] || security=$(host_uris | grep -E '^https?://[^ ]*/debian-security/?$' | head -n 1) || true
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

# --- Wheels ----------------------------------------------------------------------------------------------------------
case $(uname -m) in
x86_64 | amd64) machine=x86_64 architecture=amd64 ;;
aarch64 | arm64) machine=aarch64 architecture=arm64 ;;
*) die "no pinned wheels for $(uname -m); x86_64 and aarch64 are supported" ;;
esac
set -- --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
    --implementation cp --python-version 3.11 --abi cp311 --abi abi3 --abi none \
    --platform "manylinux_2_28_$machine" --platform "manylinux_2_17_$machine" --platform "manylinux2014_$machine" --platform any
if [ -n "${ADE_WHEELHOUSE-}" ]; then
    set -- "$@" --no-index --find-links "$ADE_WHEELHOUSE"
elif [ -n "${ADE_INDEX_URL-}" ]; then
    set -- "$@" --index-url "$ADE_INDEX_URL"
fi
[ -z "${ADE_CA_BUNDLE-}" ] || set -- "$@" --cert "$ADE_CA_BUNDLE"
say 'fetching the pinned wheels'
python3 -m pip download "$@" --dest "$work/wheels" --requirement "$context/requirements.lock" >&2 ||
    die 'could not fetch the pinned wheels; point ADE_INDEX_URL or ADE_WHEELHOUSE at a place that has them (and ADE_CA_BUNDLE at the authorities to trust)'

# --- Root file system ------------------------------------------------------------------------------------------------
# A scratch Debian is extracted, never configured: no maintainer script runs. Its own Python then picks, from inside, what
# the image gets. Hooks work as root and, in user namespaces, without.
mkdir "$work/ade"
cp -R "$context/ade_runner" "$context/boot.py" "$context/assemble.py" "$work/wheels" "$work/ade/"
set -- --variant=extract --format=null --architectures="$architecture" \
    --include=python3-minimal,libpython3.11-stdlib,libstdc++6,libgcc-s1,zlib1g,libexpat1,ca-certificates,tzdata \
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
say "wrote $out"
