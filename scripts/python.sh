#!/bin/sh
# Builds the Python wheel, installs it into target/venv, and runs everything that judges it: ruff,
# mypy --strict, stubtest, pytest, and SQLAlchemy's compliance suite for dialects. Arguments go to
# pytest, and leave that suite out.
#
# The wheel is installed rather than linked to its source, so that what is tested is what is shipped.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
target=${CARGO_TARGET_DIR:-$root/target}
# A directory of its own: the wheel builds the library with other dependencies, and the file that it writes
# has the same name as the workspace's.
export CARGO_TARGET_DIR="$target/python"
export PATH="$HOME/.cargo/bin:$PATH"
venv=$target/venv
python=${PYTHON:-python3}

if [ ! -x "$venv/bin/python" ]; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
        echo "python: $python is older than 3.10; name a newer one in PYTHON" >&2
        exit 1
    }
    "$python" -m venv "$venv"
fi
# What is installed already is not asked for again: without a network the tests still run.
requirements=$root/python/requirements-test.txt
if ! cmp -s "$requirements" "$venv/requirements-test.txt"; then
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$venv/requirements-test.txt"
fi

wheels=$target/wheels
rm -rf "$wheels"
"$venv/bin/maturin" build --quiet --release --locked --interpreter "$venv/bin/python" \
    --manifest-path python/Cargo.toml --out "$wheels"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-index \
    --force-reinstall "$wheels"/segue-*.whl

cd python
# Programs that the tests start must find the wheel, and not this directory.
export PYTHONSAFEPATH=1
# Not `python -m`, which would put this directory, without the native module, before the wheel.
"$venv/bin/ruff" format --check --quiet .
"$venv/bin/ruff" check --quiet .
"$venv/bin/mypy"
"$venv/bin/stubtest" segue._segue
"$venv/bin/pytest" "$@"
if [ $# -eq 0 ]; then
    # What judges the chaos runs, without a cluster: scripts/chaos.sh has the rest.
    (
        cd "$root/tests/chaos"
        "$venv/bin/ruff" format --check --quiet .
        "$venv/bin/ruff" check --quiet .
        "$venv/bin/pytest" -q --no-header
        cd ..
        "$venv/bin/mypy" --config-file chaos/pyproject.toml -p chaos
    )
    # In a process of its own: its plugin takes pytest over.
    cd sqlalchemy_tests
    "$venv/bin/pytest" -q --no-header -r fE
    # What reads the catalogue is the same for both.
    "$venv/bin/pytest" -q --no-header -r fE --segue-async -k "not Reflection"
fi
