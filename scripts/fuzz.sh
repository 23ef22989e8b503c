#!/bin/sh
# Runs the fuzz targets that are named, or all of them, for MINUTES each (1): against the corpus that is kept in
# fuzz/corpus, beside it in target/fuzz-corpus for what is new. A finding ends it, with the input's path.
#
# cargo-fuzz needs flags of an unstable compiler; RUSTC_BOOTSTRAP lets the stable one take them.
set -eu
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"
export RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target}/fuzz"
minutes=${MINUTES:-1}

cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz
if [ $# -eq 0 ]; then
    for target in fuzz/fuzz_targets/*.rs; do
        set -- "$@" "$(basename "$target" .rs)"
    done
fi
cargo fuzz build
for target; do
    new=$CARGO_TARGET_DIR/corpus/$target
    mkdir -p "$new" "fuzz/corpus/$target"
    echo "fuzz: $target, $minutes minutes"
    cargo fuzz run "$target" "$new" "fuzz/corpus/$target" -- \
        -max_total_time=$((minutes * 60)) -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0
done
