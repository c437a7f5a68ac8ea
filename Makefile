# Each target does its whole set-up; a Rust toolchain is all that has to be there.

# Mesa's Vulkan drivers complain when it is unset.
export XDG_RUNTIME_DIR ?= /tmp

.PHONY: demo test test-largest bench gpu-stats lint models vulkan web

# Cargo features besides the usual ones.
FEATURES ?=
WITH_FEATURES := $(if $(FEATURES),--features $(FEATURES))

# The crate of scripts/gpu-stats, built beside the main one.
GPU_STATS := --manifest-path scripts/gpu-stats/Cargo.toml --target-dir target

## See it work on the models that the program carries: minutes, then ./demo-run/report.html.
demo: vulkan
	cargo build --release --bin oaif
	target/release/oaif demo --output-dir demo-run --overwrite-output-dir

## Every test, doc tests and examples included. Without a GPU they fail rather than pass unseen. FEATURES=mpi: those of MPI, too.
test: vulkan
	REQUIRE_GPU=1 cargo test $(WITH_FEATURES)
	cargo test $(GPU_STATS)

## Kernels at the largest shapes that models have, contexts and vocabularies above all: minutes.
test-largest: vulkan
	REQUIRE_GPU=1 cargo test --test kernels -- --ignored --nocapture largest_shapes_agree_with_reference

## Every kernel and whole steps, timed.
bench: vulkan
	cargo bench

## What the shader compilers of GPUs make of the kernels, without a GPU: minutes, then target/gpu-stats/stats.md. Fails where a
## kernel breaks a bound; says that it is skipped where Debian's Mesa cannot be had.
gpu-stats:
	scripts/gpu-stats.sh --skip-without-packages target/gpu-stats

## The small world's policy and judges from nothing, into ./models: hours on a software driver, resumable.
models: vulkan
	scripts/models.sh

## The page that aligns in a browser's tab, into examples/web/dist. Says that it is skipped where Rust has no such target.
web:
	examples/web/build.sh --skip-without-target

## What a change must pass besides its tests.
lint:
	cargo fmt --check
	cargo clippy --all-targets $(WITH_FEATURES) -- -D warnings
	cargo fmt --check --manifest-path scripts/gpu-stats/Cargo.toml
	cargo clippy --all-targets $(GPU_STATS) -- -D warnings

vulkan:
	@scripts/vulkan.sh
