#!/bin/sh
# The C and C++ suites in three ways: as they are, under valgrind, and with AddressSanitizer and
# UndefinedBehaviorSanitizer in the tests. `scripts/ctest.sh plain` (or valgrind, sanitize) runs one.
#   CTEST_ARGS   further arguments of ctest, such as "-R c.query"
#   SEGUE_LIBRARY_DIR   tests the library there instead of building one
set -eu
cd "$(dirname "$0")/.."
root=$PWD
ways=${*:-plain valgrind sanitize}

if [ -z "${SEGUE_LIBRARY_DIR:-}" ]; then
    SEGUE_LIBRARY_DIR=${CARGO_TARGET_DIR:-$root/target}/release
    "${CARGO:-cargo}" build --release --lib
fi
"${CARGO:-cargo}" build --release -p segue-testkit --bin segue-cluster
cluster=${CARGO_TARGET_DIR:-$root/target}/release/segue-cluster

valgrind="valgrind;--quiet;--leak-check=full;--errors-for-leak-kinds=definite,indirect,possible"
valgrind="$valgrind;--show-leak-kinds=definite,indirect,possible;--error-exitcode=99;--fair-sched=yes"
# A child of fork() lacks the threads that own much of what it sees: its leaks say nothing.
valgrind="$valgrind;--child-silent-after-fork=yes;--num-callers=30;--suppressions=$root/tests/c/valgrind.supp"

# run WAY SANITIZERS RUNNER SLOWNESS
run() {
    build=$root/target/ctest/$1
    echo "ctest: $1"
    cmake -S tests -B "$build" -DCMAKE_BUILD_TYPE=RelWithDebInfo \
        -DSEGUE_LIBRARY_DIR="$SEGUE_LIBRARY_DIR" -DSEGUE_INCLUDE_DIR="$root/include" \
        -DSEGUE_CLUSTER="$cluster" -DSEGUE_SANITIZE="$2" -DSEGUE_RUNNER="$3" >/dev/null
    cmake --build "$build" -j2 >"$build/build.log" 2>&1 || { cat "$build/build.log"; return 1; }
    # shellcheck disable=SC2086 # arguments
    SEGUE_TEST_SLOWNESS=$4 ctest --test-dir "$build" --output-on-failure -j2 ${CTEST_ARGS:-}
}

for way in $ways; do
    case $way in
    plain) run plain "" "" 1 ;;
    valgrind) run valgrind "" "$valgrind" 5 ;;
    sanitize)
        ASAN_OPTIONS=detect_leaks=1:abort_on_error=0:exitcode=99 \
            UBSAN_OPTIONS=print_stacktrace=1 run sanitize address,undefined "" 2
        ;;
    *)
        echo "ctest: there is no way $way; there are plain, valgrind and sanitize" >&2
        exit 2
        ;;
    esac
done
