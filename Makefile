# The commands of the README. Each installs what it needs first; see scripts/setup.sh.

CARGO ?= cargo
export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: help setup demo test test-c test-packaging test-python fuzz bench bench-python chaos sim sim-mutations lint clean build header install uninstall

help:
	@echo "make demo    kill a real primary under a real workload, and see nothing lost"
	@echo "make test    lint, then every test suite, against real servers"
	@echo "make test-c  the C and C++ suites alone: plain, under valgrind, with sanitizers"
	@echo "make test-python   the Python wheel's suite alone"
	@echo "make fuzz MINUTES=10   the fuzz targets, so long each"
	@echo "make bench   the benchmarks; make bench-python: the wheel beside psycopg and asyncpg"
	@echo "make chaos MINUTES=2   real clients on a real Patroni cluster under faults, as root; docs/chaos.md"
	@echo "make sim SEEDS=100000 FROM=0   the simulation, on all cores; make sim-mutations: is it any good? docs/simulation.md"
	@echo "make setup   install what these need (PostgreSQL, a C toolchain, network tools)"
	@echo "make lint    formatting and clippy"
	@echo "make header  write include/segue.h anew from src/ffi"
	@echo "make install PREFIX=/usr/local DESTDIR= LIBDIR=   library, headers, command line; or uninstall"
	@echo "make test-packaging   install to temporary places and build C and C++ projects against that"
	@echo "make clean   remove what was built"

setup:
	@sh scripts/setup.sh

demo: setup
	$(CARGO) run --release --bin segue -- demo

test: setup lint
	$(CARGO) test --workspace
	CARGO="$(CARGO)" sh scripts/ctest.sh plain
	CARGO="$(CARGO)" bash scripts/packaging-test.sh
	sh scripts/python.sh

test-c: setup
	CARGO="$(CARGO)" sh scripts/ctest.sh

test-python: setup
	sh scripts/python.sh

fuzz:
	MINUTES="$(MINUTES)" sh scripts/fuzz.sh

bench: setup
	$(CARGO) run --release -p segue-bench -- all

# Uses the wheel that `make test-python` has built and installed.
bench-python:
	target/venv/bin/python python/benchmarks/statements.py
	target/venv/bin/python python/benchmarks/rows.py
	target/venv/bin/python python/benchmarks/submit.py
	target/venv/bin/python python/benchmarks/footprint.py

MINUTES ?= 2

# More options of `python -m chaos`: make chaos MINUTES=30 CHAOS="--mode async --seed 7".
chaos: setup
	@sh scripts/chaos.sh --minutes $(MINUTES) $(CHAOS)

SEEDS ?= 20000
FROM ?= 0

sim:
	SEGUE_SIM_SEEDS=$(SEEDS) SEGUE_SIM_FROM=$(FROM) $(CARGO) test --profile sim --no-default-features \
		--test sim every_promise -- --nocapture

sim-mutations:
	$(CARGO) test --profile sim --no-default-features --features mutations \
		--test sim every_deliberate -- --nocapture

build:
	$(CARGO) build --release --lib --bin segue

header:
	SEGUE_BLESS=1 $(CARGO) test --test header

# Builds first where there is a cargo: `make build && sudo make install` needs none for root.
install:
	@CARGO="$(CARGO)" PREFIX="$(PREFIX)" LIBDIR="$(LIBDIR)" DESTDIR="$(DESTDIR)" sh scripts/install.sh

uninstall:
	@PREFIX="$(PREFIX)" LIBDIR="$(LIBDIR)" DESTDIR="$(DESTDIR)" sh scripts/install.sh --uninstall

test-packaging: setup
	@CARGO="$(CARGO)" bash scripts/packaging-test.sh

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

clean:
	$(CARGO) clean
