#!/bin/sh
# Runs the fuzz targets that are named, or all of them, for MINUTES each (1): from the corpus that is kept in
# fuzz/corpus, one archive for each; what is new goes to target/fuzz/corpus. A finding ends it, with the input's path.
#
# KEEP=1: afterwards the archive is made anew, from the few inputs that reach all that the old and the new reach.
#
# cargo-fuzz needs flags of an unstable compiler; RUSTC_BOOTSTRAP lets the stable one take them.
set -eu
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"
export RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/fuzz"
minutes=${MINUTES:-1}

# run TARGET DIRECTORY... -- OPTION...
run() {
    cargo fuzz run "$@" -rss_limit_mb=2048 -timeout=60
}

cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz
if [ $# -eq 0 ]; then
    for target in fuzz/fuzz_targets/*.rs; do
        set -- "$@" "$(basename "$target" .rs)"
    done
fi
for target; do
    new=$CARGO_TARGET_DIR/corpus/$target
    kept=$CARGO_TARGET_DIR/corpus/$target.kept
    archive=fuzz/corpus/$target.tar.gz
    rm -rf "$kept"
    mkdir -p "$new" "$kept"
    [ ! -e "$archive" ] || tar -xzf "$archive" -C "$kept"
    echo "fuzz: $target, $minutes minutes"
    # Some inputs are worth little as long as they are short: they are sequences of steps.
    case $target in
        c_abi) limits="-max_len=600 -len_control=0" ;;
        authentication) limits="-max_len=1024 -len_control=0" ;;
        session) limits="-max_len=600" ;;
        *) limits="" ;;
    esac
    # shellcheck disable=SC2086 # several options
    run "$target" "$new" "$kept" -- -max_total_time=$((minutes * 60)) -print_final_stats=1 -verbosity=0 $limits
    if [ -n "${KEEP:-}" ]; then
        few=$CARGO_TARGET_DIR/corpus/$target.few
        rm -rf "$few"
        mkdir -p "$few"
        run "$target" "$few" "$new" "$kept" -- -set_cover_merge=1
        tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$few" -cf - . | gzip -9n >"$archive"
    fi
done
