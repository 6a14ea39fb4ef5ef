#!/bin/sh
# Makes a base image's root as a tar file: Debian 12 with its Python 3.11, and nothing that the
# images do not need. For machines that reach a mirror of Debian and no hub; as root.
#
#   base.sh TARGET.tar
#
# DEBIAN_MIRROR   default: http://deb.debian.org/debian
set -eu
target=$1
command -v debootstrap >/dev/null || {
    echo >&2 "No hub is reachable, and debootstrap, which makes a base without one, is not"
    echo >&2 "installed. Name a base that is here (BASE_IMAGE=…), or: apt install debootstrap"
    exit 1
}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=ca-certificates,python3-venv bookworm "$root" \
    "${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
(
    cd "$root"
    rm -rf var/cache/apt/* var/lib/apt/lists/* var/log/* var/cache/debconf/*-old dev/* \
        usr/share/doc/* usr/share/info/* usr/share/locale/* usr/share/man/*
)
tar --numeric-owner --sort=name -C "$root" -cf "$target.part" .
mv "$target.part" "$target"
