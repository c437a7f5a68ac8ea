# Each target does its whole set-up; a Rust toolchain is all that has to be there.

# Mesa's Vulkan drivers complain when it is unset.
export XDG_RUNTIME_DIR ?= /tmp

.PHONY: demo test bench lint models vulkan

## Align a small model in 20 steps, into ./demo-run.
demo: vulkan
	cargo build --release
	scripts/demo.sh

## Every test, doc tests and examples included. Without a GPU adapter they fail rather than pass unseen.
test: vulkan
	REQUIRE_GPU=1 cargo test

## Every kernel and whole steps, timed.
bench: vulkan
	cargo bench

## The small world's policy and judges from nothing, into ./models: hours on a software driver, resumable.
models: vulkan
	scripts/models.sh

## What a change must pass besides its tests.
lint:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

vulkan:
	@scripts/vulkan.sh
