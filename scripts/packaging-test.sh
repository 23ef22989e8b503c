#!/usr/bin/env bash
# Installs Segue into temporary places, and uses it from there as strangers would: CMake and pkg-config
# projects, shared and static, C and C++, and the examples through a failover on real servers.
# Leaves nothing behind. `make test-packaging` calls it.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
cargo=${CARGO:-cargo}
target=${CARGO_TARGET_DIR:-target}

work=$(mktemp -d "${TMPDIR:-/tmp}/segue-packaging.XXXXXX")
programs=()
tidy() {
    for pid in "${programs[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    # The end of its input is what the cluster goes away with, and its servers with it.
    exec 3>&- 4<&- 5<&- 6>&-
    wait
    rm -rf "$work"
}
trap tidy EXIT

step() { echo "packaging: $*"; }
fail() {
    echo "packaging: FAILED: $*" >&2
    exit 1
}
run() { # run COMMAND...: quiet unless it fails
    "$@" >"$work/log" 2>&1 || {
        cat "$work/log" >&2
        fail "$*"
    }
}

check_tree() { # check_tree TREE LIBDIR: all files are there, the links lead on, nothing names a build path
    local tree=$1 libdir=$2 file
    for file in "$libdir/libsegue.a" "$libdir/pkgconfig/segue.pc" "$tree/include/segue.h" \
        "$tree/include/segue.hpp" "$tree/include/segue/client.hpp" "$tree/bin/segue" \
        "$libdir"/cmake/segue/segue-{config,config-version,targets}.cmake; do
        [ -f "$file" ] || fail "$file is missing"
    done
    [ "$(readlink "$libdir/libsegue.so")" = libsegue.so.1 ] || fail "libsegue.so is no link to libsegue.so.1"
    [[ $(readlink "$libdir/libsegue.so.1") == libsegue.so.1.* ]] || fail "libsegue.so.1 is no link"
    [ -f "$libdir/libsegue.so.1" ] || fail "libsegue.so.1 leads nowhere"
    if grep -rn -e "$root" -e "$work" -e '@[A-Z_]*@' "$libdir/pkgconfig" "$libdir/cmake"; then
        fail "an absolute path or a placeholder is in the files above"
    fi
}

check_library() { # check_library FILE: its name, what it exports, what it needs
    local needed
    readelf -d "$1" >"$work/dynamic"
    grep -q 'SONAME.*\[libsegue\.so\.1\]' "$work/dynamic" || fail "the SONAME is not libsegue.so.1"
    if grep -E 'R(UN)?PATH|TEXTREL' "$work/dynamic"; then
        fail "the library carries a search path or text relocations"
    fi
    needed=$(sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' "$work/dynamic" |
        grep -vE '^(libc|libm|libgcc_s|libpthread|libdl|librt|libutil|ld-linux.*)\.so\.[0-9]+$' || true)
    [ -z "$needed" ] || fail "the library needs $needed"
    if LC_ALL=C ldd "$1" | grep 'not found'; then
        fail "ldd does not find all that the library needs"
    fi
    LC_ALL=C nm -D --defined-only "$1" | awk '{print $3}' | sort >"$work/exported"
    grep '^segue_' exports.txt | LC_ALL=C sort >"$work/listed"
    diff "$work/listed" "$work/exported" || fail "exports.txt and the library differ"
}

uses_shared() { # uses_shared yes|no PROGRAM
    local found=no
    if readelf -d "$2" | grep -q 'NEEDED.*libsegue'; then found=yes; fi
    [ "$found" = "$1" ] || fail "$2 depends on the shared library: $found"
}

build_with_cmake() { # build_with_cmake PREFIX BUILD TARGET...
    local prefix=$1 build=$2 program
    shift 2
    run cmake -S tests/packaging/cmake -B "$build" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Debug
    run cmake --build "$build" -j "$(nproc)" --target "$@"
    for program; do
        case $program in
        *-static) uses_shared no "$build/$program" ;;
        *) uses_shared yes "$build/$program" ;;
        esac
    done
}

# ------------------------------------------------------------------------------------ installation

step "installing for a distribution (DESTDIR)"
run env DESTDIR="$work/dest" PREFIX=/usr LIBDIR=/usr/lib/x86_64-linux-gnu sh scripts/install.sh
check_tree "$work/dest/usr" "$work/dest/usr/lib/x86_64-linux-gnu"
got=$(PKG_CONFIG_PATH="$work/dest/usr/lib/x86_64-linux-gnu/pkgconfig" pkg-config --cflags segue)
read -r got <<<"$got" # It ends with a space.
(cd "${got#-I}" && [ "$PWD" = "$work/dest/usr/include" ]) || fail "pkg-config says $got"
run env DESTDIR="$work/dest" PREFIX=/usr LIBDIR=/usr/lib/x86_64-linux-gnu sh scripts/install.sh --uninstall
[ -z "$(find "$work/dest" ! -type d)" ] || fail "make uninstall leaves $(find "$work/dest" ! -type d)"

step "installing below a prefix"
prefix=$work/prefix
run env PREFIX="$prefix" sh scripts/install.sh
check_tree "$prefix" "$prefix/lib"
check_library "$prefix/lib/libsegue.so.1"
"$prefix/bin/segue" --version >/dev/null || fail "bin/segue does not run"
diff -r bindings/cpp/segue "$prefix/include/segue" || fail "not all C++ headers are installed"

# ------------------------------------------------------------------------------------ real servers

step "starting a primary and a standby"
run "$cargo" build -p segue-testkit --bin segue-cluster
mkfifo "$work/commands" "$work/answers"
"$target/debug/segue-cluster" --standbys 1 --replication sync <"$work/commands" >"$work/answers" &
exec 3>"$work/commands" 4<"$work/answers"
while read -r -t 60 key value <&4; do
    case $key in
    conninfo) conninfo=$value ;;
    error) fail "segue-cluster: $value" ;;
    ready) break ;;
    esac
done
[ "${key:-}" = ready ] || fail "segue-cluster did not start in time"

ask() { # ask COMMAND...: into $answer
    local word
    echo "$*" >&3
    read -r -t 60 word answer <&4 || fail "no answer to: $*"
    [ "$word" = ok ] || fail "$*: $answer"
}
ask wait_standbys

run_consumers() { # run_consumers DIRECTORY LIBDIR PROGRAM...
    local directory=$1 libdir=$2 program
    shift 2
    for program in "$@"; do
        run env LD_LIBRARY_PATH="$libdir" "$directory/$program"
        run env LD_LIBRARY_PATH="$libdir" "$directory/$program" "$conninfo"
    done
}

# --------------------------------------------------------------------------------------- consumers

step "a CMake project: C shared and static, C++"
all=(c-shared c-static cpp-shared cpp-static)
build_with_cmake "$prefix" "$work/cmake" "${all[@]}"
run_consumers "$work/cmake" "$prefix/lib" "${all[@]}"
for asked in "0.1:0" "0.1.0:0" "0.2:1" "1.0:1"; do
    printf 'cmake_minimum_required(VERSION 3.16)\nproject(v LANGUAGES C)\nfind_package(segue %s REQUIRED)\n' \
        "${asked%:*}" >"$work/CMakeLists.txt"
    got=0
    cmake -S "$work" -B "$work/version-${asked%:*}" -DCMAKE_PREFIX_PATH="$prefix" >/dev/null 2>&1 || got=1
    [ "$got" = "${asked#*:}" ] || fail "find_package(segue ${asked%:*}) gives $got"
done

step "a pkg-config project: C shared and static, C++"
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig
mkdir "$work/make"
run make -C "$work/make" -f "$root/tests/packaging/pkgconfig/Makefile"
uses_shared yes "$work/make/c-shared"
uses_shared no "$work/make/c-static"
run_consumers "$work/make" "$prefix/lib" c-shared c-static cpp-shared

step "the same tree moved elsewhere"
moved=$work/moved/to/opt
mkdir -p "$(dirname "$moved")"
mv "$prefix" "$moved"
build_with_cmake "$moved" "$work/cmake-moved" c-shared c-static cpp-shared
run_consumers "$work/cmake-moved" "$moved/lib" c-shared c-static cpp-shared
export PKG_CONFIG_PATH=$moved/lib/pkgconfig
mkdir "$work/make-moved"
run make -C "$work/make-moved" -f "$root/tests/packaging/pkgconfig/Makefile" c-shared
run_consumers "$work/make-moved" "$moved/lib" c-shared

# ---------------------------------------------------------------------------------------- examples

step "the examples, as their README compiles them"
export LD_LIBRARY_PATH=$moved/lib
flags="-Wall -Wextra -Wpedantic -Werror"
mkdir "$work/examples"
grep -E '^(cc|c\+\+) ' bindings/examples/README.md >"$work/compile"
[ "$(wc -l <"$work/compile")" -eq 4 ] || fail "bindings/examples/README.md has other commands than expected"
while read -r command; do
    (cd bindings/examples && eval "${command% -o *} $flags -o $work/examples/${command##* -o }") ||
        fail "$command"
done <"$work/compile"

through_a_failover() { # through_a_failover PROGRAM OLD NEW: kills OLD while it runs, promotes NEW
    local program=$1 old=$2 new=$3 line last='' pid
    mkfifo "$work/$program.out"
    "$work/examples/$program" "$conninfo" 2000 >"$work/$program.out" &
    pid=$!
    programs+=("$pid")
    exec 5<"$work/$program.out"
    read -r -t 60 line <&5 || fail "$program printed nothing"
    [ "$line" = "100 transfers" ] || fail "$program began with: $line"
    ask kill "$old"
    ask promote "$new"
    while read -r -t 60 line <&5; do
        last=$line
    done
    exec 5<&-
    wait "$pid" || fail "$program ended with an error, after: $last"
    [[ $last == "2000 transfers reported, 2000 in the database"* ]] || fail "$program ended with: $last"
    step "  $program: $last"
}

: >"$work/events.out"
"$work/examples/events" "$conninfo" 120 >"$work/events.out" 2>&1 &
events=$!
programs+=("$events")
for ((tries = 0; tries < 600; tries++)); do
    grep -q '^server ' "$work/events.out" && break
    sleep 0.1
done
step "transfer (C) while the primary is killed"
through_a_failover transfer 0 1
ask rejoin 0
ask wait_standbys
# A promoted server replicates asynchronously until told otherwise: commits that it has acknowledged
# could be lost with it, and the counts below would say so.
ask sql 1 "ALTER SYSTEM SET synchronous_standby_names = '*'"
ask sql 1 "SELECT pg_reload_conf()"
ask wait_until 1 "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
step "transfer (C++) while the new primary is killed"
through_a_failover transfer-cpp 1 0
kill -INT "$events"
wait "$events" || fail "events did not end well: $(cat "$work/events.out")"
grep -q '^server_lost ' "$work/events.out" || fail "events saw no loss: $(cat "$work/events.out")"
grep -q '^promoted ' "$work/events.out" || fail "events saw no promotion: $(cat "$work/events.out")"

# The cluster's own word for it, from another client than ours.
ask sql 0 "SELECT count(*) FROM transfer"
[ "$answer" = 4000 ] || fail "the database has $answer transfers instead of 4000"
ask sql 0 "SELECT sum(balance) FROM account"
[ "$answer" = 100000 ] || fail "the accounts hold $answer instead of 100000"

step "till (C) while no server is there, and again when one is"
ask sql 0 "CREATE TABLE sale (till text, number int, pieces int, PRIMARY KEY (till, number))"
ask sql 0 "GRANT ALL ON sale TO PUBLIC"
ask stop 0
run "$work/examples/till" "$conninfo" "$work/journal" 50 </dev/null
[ "$(grep -c ': kept$' "$work/log")" -eq 50 ] || fail "till kept something else: $(cat "$work/log")"
grep -q '^50 on their way' "$work/log" || fail "till says otherwise: $(cat "$work/log")"
ask start 0
# Half of them once more, under the same keys, and as many new ones.
mkfifo "$work/till.in"
"$work/examples/till" "$conninfo" "$work/journal" 50 26 <"$work/till.in" >"$work/till.out" &
till=$!
programs+=("$till")
exec 6>"$work/till.in"
ask wait_until 0 "SELECT count(*) = 75 FROM sale"
exec 6>&-
wait "$till" || fail "till did not end well: $(cat "$work/till.out")"
ask sql 0 "SELECT count(*) || ' ' || max(number) FROM sale"
[ "$answer" = "75 75" ] || fail "the database has other sales: $answer"
if grep 'dead letter' "$work/till.out"; then fail "till has dead letters"; fi

step "uninstalling"
run env PREFIX="$moved" sh scripts/install.sh --uninstall
[ -z "$(find "$moved" ! -type d 2>/dev/null)" ] || fail "left: $(find "$moved" ! -type d)"
step "all good in $SECONDS s"
