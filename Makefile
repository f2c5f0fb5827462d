# framebus: everyday commands. `make` alone lists them.
# CARGO_TARGET_DIR, CARGO_HOME and RUSTUP_HOME are respected.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup tools build demo test lint fmt fuzz bench triton-bench peers instructions tsan chaos reconnects soak faults deb deb-test docs clean distclean

# Finds cargo and the folders; every recipe that runs cargo starts with it.
ENV := . scripts/env.sh &&

help: ## list these commands
	@printf 'framebus: cameras in, detections out, over shared memory\n\n'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## install what is missing: packages, Rust, OpenVINO, model, footage
	@scripts/setup.sh

tools: setup ## build cargo-nextest, cargo-deny and cargo-fuzz (some minutes, once)
	@$(ENV) { cargo nextest --version >/dev/null 2>&1 || cargo install --locked cargo-nextest; }
	@$(ENV) { cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny; }
	@$(ENV) { cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz; }

.PHONY: ready
ready:
	@scripts/setup.sh --quiet

build: ready ## build every program, optimised, into target/release
	$(ENV) cargo build --release --workspace --bins

demo: ready ## two cameras of real footage, and a page, for DEMO_S=30 seconds
	$(ENV) cargo build --release --workspace --bins --example rtsp_server
	@scripts/demo.sh $(or $(DEMO_S),30)

test: ready ## build and run every test, whole-system tests included
	@scripts/test.sh

lint: ready ## formatting, clippy, cargo-deny, shellcheck
	@scripts/lint.sh

fmt: ## format the Rust code
	$(ENV) cargo fmt --all

fuzz: ready ## look for inputs that break parsers, MINUTES=5 for each target
	@scripts/fuzz.sh $(or $(MINUTES),5)

bench: ready ## bare engine, pipeline, bus and hot functions on this machine
	$(ENV) cargo build --release --workspace --bins
	@scripts/bench.sh

triton-bench: ready ## in process beside a Triton server of its own, in turns
	$(ENV) cargo build --release -p framebus --bins
	@scripts/triton/bench.sh

peers: ready ## framebus beside Python loops and benchmark_app, in turns
	$(ENV) cargo build --release --workspace --bins
	@scripts/peers/compare.sh

instructions: ready ## instructions of the hot functions, counted by valgrind
	@scripts/instructions.sh

tsan: ready ## the GPU path over its double, under ThreadSanitizer: data races
	@scripts/tsan.sh

deb: ready ## the Debian package of this architecture, in target/debian
	@scripts/deb.sh

deb-test: deb ## install, use, upgrade and purge the package in a fresh Debian (as root)
	@scripts/deb_test.sh

# Length of `make chaos` and `make soak`, and how often `make reconnects` does it.
chaos: MINUTES ?= 10
soak: MINUTES ?= 30
N ?= 500

chaos: ready ## kill random processes under load for MINUTES=10 (SEED=n repeats a run)
	$(ENV) cargo build --release --workspace --bins --examples
	@$(ENV) "$$FB_TARGET"/release/examples/chaos --kills $$(( 32 * $(MINUTES) )) \
		--seconds $$(( 60 * $(MINUTES) )) $(if $(SEED),--seed $(SEED))

reconnects: ready ## end and restart an RTSP camera N=500 times
	$(ENV) cargo build --release --workspace --bins --examples
	@$(ENV) "$$FB_TARGET"/release/examples/reconnects --count $(N)

soak: ready ## four cameras for MINUTES=30: does anything grow? draws docs/soak.png
	$(ENV) cargo build --release --workspace --bins --examples
	@scripts/soak.sh $(MINUTES)

faults: ready ## the fault tests, and docs/faults.md from what status said in them
	$(ENV) cargo build --workspace --bins --examples
	@scripts/fault_table.sh

docs: ready ## the API documentation, in target/doc
	$(ENV) cargo doc --workspace --no-deps

clean: ## remove what cargo built and what demo and bench wrote
	$(ENV) cargo clean
	rm -rf .framebus/demo .framebus/bench

distclean: clean ## clean, and also remove OpenVINO, the model and the footage
	rm -rf .framebus
