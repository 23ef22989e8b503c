#!/bin/sh
# Installs what the tests, the demo and the benchmarks need, from Debian's or Ubuntu's packages.
# Touches nothing when all of it is there already. Where it may not install, it says what is
# missing and fails.
set -eu

oldest_postgres=14
missing=''

have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }

need() { # need PROGRAM PACKAGE
    have "$1" || missing="$missing $2"
}

# A server counts where its initdb is; pg_config alone may belong to the client library.
has_postgres() {
    if [ -n "${SEGUE_PG_BIN:-}" ]; then
        [ -x "$SEGUE_PG_BIN/initdb" ]
        return
    fi
    pg_config_dir=$(pg_config --bindir 2>/dev/null || true)
    for dir in "$pg_config_dir" /usr/lib/postgresql/*/bin; do
        if [ ! -x "$dir/initdb" ] || [ ! -x "$dir/postgres" ]; then
            continue
        fi
        major=$("$dir/postgres" --version | sed 's/^[^)]*) *\([0-9]*\).*/\1/')
        [ "${major:-0}" -ge "$oldest_postgres" ] && return 0
    done
    return 1
}

# The venv module may be there without ensurepip, which Debian packages apart.
has_python() {
    python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null
}

# The packaged server would otherwise start a cluster of its own on installation.
no_cluster_of_its_own() {
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        $sudo mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' |
            $sudo tee /etc/postgresql-common/createcluster.conf >/dev/null
    fi
}

has_postgres || missing="$missing postgresql"
need cc build-essential
need c++ build-essential
need make build-essential
need cmake cmake
need pkg-config pkg-config
need openssl openssl
need ip iproute2
need iptables iptables
need setpriv util-linux
need valgrind valgrind
has_python || missing="$missing python3 python3-venv"
pkg-config --exists libpq 2>/dev/null || missing="$missing libpq-dev"
# shellcheck disable=SC2086 # a list of packages
missing=$(printf '%s\n' $missing | sort -u | tr '\n' ' ')

if [ -n "${missing% }" ]; then
    if ! have apt-get; then
        echo "setup: missing: $missing(names of Debian's packages); this system has no apt-get," >&2
        echo "setup: so please install their like by hand. PostgreSQL must be $oldest_postgres or later;" >&2
        echo "setup: SEGUE_PG_BIN may name its bin directory." >&2
        exit 1
    fi
    sudo=''
    if [ "$(id -u)" -ne 0 ]; then
        if have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
            sudo=sudo
        else
            echo "setup: missing: $missing" >&2
            echo "setup: this user may not install them; as root run: apt-get install $missing" >&2
            exit 1
        fi
    fi
    echo "setup: installing $missing"
    case " $missing" in *' postgresql '*) no_cluster_of_its_own ;; esac
    $sudo apt-get update -qq
    # shellcheck disable=SC2086 # a list of packages
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        $missing >/dev/null
    if ! has_postgres; then
        echo "setup: the packaged PostgreSQL is older than $oldest_postgres; install a newer one" >&2
        echo "setup: (https://www.postgresql.org/download/) or name its bin directory in SEGUE_PG_BIN" >&2
        exit 1
    fi
    if ! has_python; then
        echo "setup: the packaged Python is older than 3.10; install a newer one" >&2
        exit 1
    fi
fi

if ! have cargo && [ ! -x "$HOME/.cargo/bin/cargo" ]; then
    echo "setup: Rust is missing; install it with rustup (https://rustup.rs):" >&2
    echo "setup:   curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh" >&2
    exit 1
fi
