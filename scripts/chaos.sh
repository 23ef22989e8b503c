#!/bin/sh
# Runs Segue's workloads on a three-node Patroni cluster under faults, and judges them: docs/chaos.md.
# Arguments go to `python -m chaos`. Needs root, since every node has a network of its own.
#
# Installs Debian's packages where they are missing. None of their services is started: the harness starts
# servers of its own, in namespaces, as the user postgres.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
target=${CARGO_TARGET_DIR:-$root/target}
profile=${SEGUE_CHAOS_PROFILE:-release}
python=${PYTHON:-python3}
export PATH="$HOME/.cargo/bin:$PATH"

if [ "$(id -u)" -ne 0 ]; then
    echo "chaos: namespaces need root; run it by sudo" >&2
    exit 1
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "chaos: $python is older than 3.11; name a newer one in PYTHON" >&2
    exit 1
}

missing=''
need() { # need PROGRAM PACKAGE
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing="$missing $2"
}
need patroni patroni
need etcd etcd-server
need haproxy haproxy
need ip iproute2
need iptables iptables
need setpriv util-linux
/usr/bin/python3 -c 'import etcd' 2>/dev/null || missing="$missing python3-etcd"
if [ -n "$missing" ]; then
    echo "chaos: installing$missing"
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "chaos: this system has no apt-get; please install the like of these by hand" >&2
        exit 1
    fi
    # Tells the packages not to start what they install.
    policy=/usr/sbin/policy-rc.d
    our_policy=''
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        our_policy=yes
        trap 'rm -f "$policy"' EXIT
    fi
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of packages
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    # By hand too: exec below runs no traps.
    if [ -n "$our_policy" ]; then
        rm -f "$policy"
        trap - EXIT
    fi
fi

venv=$target/chaos-venv
if [ ! -x "$venv/bin/python" ]; then
    "$python" -m venv "$venv"
fi
requirements=$root/tests/chaos/requirements.txt
if ! cmp -s "$requirements" "$venv/requirements.txt"; then
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$venv/requirements.txt"
fi
if [ -n "${SEGUE_CHAOS_WHEEL:-}" ]; then
    wheel=$SEGUE_CHAOS_WHEEL
else
    # A directory of its own, as in scripts/python.sh.
    CARGO_TARGET_DIR="$target/python" "$venv/bin/maturin" build --quiet --release --locked \
        --interpreter "$venv/bin/python" --manifest-path python/Cargo.toml --out "$target/chaos-wheels"
    wheel=$(ls -t "$target"/chaos-wheels/segue-*.whl | head -n 1)
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-index \
    --force-reinstall "$wheel"

# The profile called dev leaves its files in debug.
case $profile in dev) built=$target/debug ;; *) built=$target/$profile ;; esac
cargo build --quiet --locked --profile "$profile" -p segue --lib
cargo build --quiet --locked --profile "$profile" -p segue-chaos
programs=$target/chaos-programs
mkdir -p "$programs"
# Copies, so that a later build does not change what is running.
cp "$built/libsegue.so" "$programs/libsegue.so.1"
cp "$built/segue-chaos" "$programs/rust"
cc -std=c99 -O1 -g -Wall -Wextra -Werror -Iinclude tests/chaos/client.c -o "$programs/c" \
    "$programs/libsegue.so.1" -Wl,-rpath,"$programs" -pthread

build=$(git describe --always --dirty 2>/dev/null || true)
export PYTHONPATH="$root/tests"
exec "$venv/bin/python" -m chaos --rust "$programs/rust" --c "$programs/c" \
    --build "$build${build:+, }$profile" "$@"
