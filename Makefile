# Each target does its whole set-up; a Rust toolchain is all that has to be there.

# Mesa's Vulkan drivers complain when it is unset.
export XDG_RUNTIME_DIR ?= /tmp

.PHONY: demo test bench lint models vulkan

## See it work on the models that the program carries: minutes, then ./demo-run/report.html.
demo: vulkan
	cargo build --release --bin oaif
	target/release/oaif demo --output-dir demo-run --overwrite-output-dir

## Every test, doc tests and examples included. Without a GPU they fail rather than pass unseen.
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
