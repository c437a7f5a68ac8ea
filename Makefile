# Every target but book sets up what it needs; only a Rust toolchain is required.

# Mesa's Vulkan drivers print a warning if it is unset.
export XDG_RUNTIME_DIR ?= /tmp

.PHONY: book demo test test-largest bench gpu-stats lint models vulkan web

# Cargo features in addition to the default ones.
FEATURES ?=
WITH_FEATURES := $(if $(FEATURES),--features $(FEATURES))

# The crate of scripts/gpu-stats, built in the main target folder.
GPU_STATS := --manifest-path scripts/gpu-stats/Cargo.toml --target-dir target

## Runs the demo on the built-in models: takes minutes and writes ./demo-run/report.html.
demo: vulkan
	cargo build --release --bin oaif
	target/release/oaif demo --output-dir demo-run --overwrite-output-dir

## Runs every test, including doc tests and examples. Without a GPU they fail instead of being skipped. FEATURES=mpi adds the MPI tests.
test: vulkan
	REQUIRE_GPU=1 cargo test $(WITH_FEATURES)
	cargo test $(GPU_STATS)

## Tests the kernels at the largest shapes of models, mainly contexts and vocabularies: takes minutes.
test-largest: vulkan
	REQUIRE_GPU=1 cargo test --test kernels -- --ignored --nocapture largest_shapes_agree_with_reference

## Times every kernel and whole steps.
bench: vulkan
	cargo bench

## Compiles the kernels with the shader compilers of GPUs, without a GPU: takes minutes and writes target/gpu-stats/stats.md.
## Fails if a kernel breaks a bound; skipped with a message if Debian's Mesa is not available.
gpu-stats:
	scripts/gpu-stats.sh --skip-without-packages target/gpu-stats

## Trains the small world's policy and judges from scratch, into ./models: takes hours on a software driver; can be resumed.
models: vulkan
	scripts/models.sh

## Builds the page that trains in a browser tab, into examples/web/dist. Skipped with a message if Rust's wasm target is missing.
web:
	examples/web/build.sh --skip-without-target

## Builds the documentation, docs/, as web pages into target/book. Needs mdBook.
book:
	@command -v mdbook >/dev/null || { echo "make book: mdbook is not installed: cargo install --locked mdbook" >&2; exit 1; }
	mdbook build docs

## Runs the checks that a change must pass in addition to the tests.
lint:
	cargo fmt --check
	cargo clippy --all-targets $(WITH_FEATURES) -- -D warnings
	cargo fmt --check --manifest-path scripts/gpu-stats/Cargo.toml
	cargo clippy --all-targets $(GPU_STATS) -- -D warnings

vulkan:
	@scripts/vulkan.sh
