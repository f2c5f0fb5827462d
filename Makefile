# framebus: everyday commands. `make` alone lists them.
# CARGO_TARGET_DIR, CARGO_HOME and RUSTUP_HOME are respected.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup tools build demo test lint fmt bench peers instructions docs clean distclean

# Finds cargo and the folders; every recipe that runs cargo starts with it.
ENV := . scripts/env.sh &&

help: ## list these commands
	@printf 'framebus: cameras in, detections out, over shared memory\n\n'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## install what is missing: packages, Rust, OpenVINO, model, footage
	@scripts/setup.sh

tools: setup ## build cargo-nextest and cargo-deny from source (some minutes, once)
	@$(ENV) { cargo nextest --version >/dev/null 2>&1 || cargo install --locked cargo-nextest; }
	@$(ENV) { cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny; }

.PHONY: ready
ready:
	@scripts/setup.sh --quiet

build: ready ## build every program, optimised, into target/release
	$(ENV) cargo build --release --workspace --bins

demo: ready ## two cameras of real footage through the whole pipeline for 30 s
	$(ENV) cargo build --release --workspace --bins --example rtsp_server
	@scripts/demo.sh

test: ready ## build and run every test, whole-system tests included
	@scripts/test.sh

lint: ready ## formatting, clippy, cargo-deny, shellcheck
	@scripts/lint.sh

fmt: ## format the Rust code
	$(ENV) cargo fmt --all

bench: ready ## bare engine, pipeline, bus and hot functions on this machine
	$(ENV) cargo build --release --workspace --bins
	@scripts/bench.sh

peers: ready ## framebus beside Python loops and benchmark_app, in turns
	$(ENV) cargo build --release --workspace --bins
	@scripts/peers/compare.sh

instructions: ready ## instructions of the hot functions, counted by valgrind
	@scripts/instructions.sh

docs: ready ## the API documentation, in target/doc
	$(ENV) cargo doc --workspace --no-deps

clean: ## remove what cargo built and what demo and bench wrote
	$(ENV) cargo clean
	rm -rf .framebus/demo .framebus/bench

distclean: clean ## clean, and also remove OpenVINO, the model and the footage
	rm -rf .framebus
