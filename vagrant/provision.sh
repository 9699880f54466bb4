#!/usr/bin/env bash
# Brings a fresh Debian 12 to what the README asks for, and runs the demonstration.
# EXEAT_SOURCE names the sources (default: Vagrant's shared folder). What is there already is not installed again.
set -euo pipefail

source_directory=${EXEAT_SOURCE:-/vagrant}

missing=()
for package in build-essential ca-certificates curl; do
    if ! dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed; then
        missing+=("$package")
    fi
done
if ((${#missing[@]})); then
    echo "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet
    apt-get install --yes --quiet --no-install-recommends "${missing[@]}"
fi

if ! command -v cargo >/dev/null; then
    export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
fi
if ! command -v cargo >/dev/null; then
    echo "installing Rust (rustup, stable)"
    curl --proto '=https' --tlsv1.2 --silent --show-error --fail https://sh.rustup.rs |
        sh -s -- -y --profile minimal --component clippy --component rustfmt
fi

cd "$source_directory"
# A shared folder is slow, and the host's own build must not be mixed with the guest's.
if [[ $source_directory == /vagrant ]]; then
    export CARGO_TARGET_DIR=/var/cache/exeat/target
fi
cargo xtask demo
