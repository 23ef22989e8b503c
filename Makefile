# The commands of the README. Each installs what it needs first; see scripts/setup.sh.

CARGO ?= cargo
export PATH := $(HOME)/.cargo/bin:$(PATH)

.PHONY: help setup demo test test-python bench lint clean

help:
	@echo "make demo    kill a real primary under a real workload, and see nothing lost"
	@echo "make test    lint, then every test suite, against real servers"
	@echo "make test-python   the Python wheel's suite alone"
	@echo "make bench   the benchmarks"
	@echo "make setup   install what these need (PostgreSQL, a C toolchain, network tools)"
	@echo "make lint    formatting and clippy"
	@echo "make clean   remove what was built"

setup:
	@sh scripts/setup.sh

demo: setup
	$(CARGO) run --release --bin segue -- demo

test: setup lint
	$(CARGO) test --workspace
	sh scripts/python.sh

test-python: setup
	sh scripts/python.sh

bench: setup
	$(CARGO) run --release -p segue-bench -- all

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

clean:
	$(CARGO) clean
