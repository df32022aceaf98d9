# What people who use or change Gatehouse type. Everything goes through cargo; tests/ and fuzz/ tell more.

CARGO ?= cargo
FUZZ_SECONDS ?= 30
FUZZ_TARGETS := device_payload down_message config_text topics frames modbus_reply
export PATH := $(PATH):/usr/sbin:/usr/local/sbin

.PHONY: help demo test setup bench disk-demo lint fmt arm fuzz

help:
	@echo 'make demo   a small compound at work on this machine, with an outage'
	@echo 'make test   installs what the tests need, builds, runs every test'
	@echo 'make disk-demo  the demo on a disk that is filled, turned read-only and given back'
	@echo 'make bench  speed and size beside a mosquitto bridge; writes docs/benchmarks.md'
	@echo 'make lint   formatting, clippy without warnings, licences and advisories'
	@echo 'make arm    the aarch64 binary and its smoke test under qemu'
	@echo 'make fuzz   each fuzz target for $(FUZZ_SECONDS) s'
	@echo 'make fmt    formats the code'

demo:
	$(CARGO) build --release --locked -p gatehouse
	target/release/gatehouse demo $(DEMO_ARGS)

setup:
	tests/setup.sh

# The first line builds everything once, the binary under test too, with the same features that the tests have.
test: setup
	$(CARGO) test --workspace --locked --no-run
	@if $(CARGO) nextest --version > /dev/null 2>&1; then \
	  $(CARGO) nextest run --workspace --locked && $(CARGO) test --workspace --locked --doc; \
	else \
	  $(CARGO) test --workspace --locked --no-fail-fast; \
	fi

disk-demo: setup
	tests/disk-demo.sh

# One build for both, so that the gateway is the one that `make demo` builds.
bench: setup
	$(CARGO) build --release --locked -p gatehouse -p gatehouse-tests --bins
	target/release/bench $(BENCH_ARGS)

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@if $(CARGO) deny --version > /dev/null 2>&1; then $(CARGO) deny check; \
	else echo 'cargo-deny is not installed: licences and advisories were not checked'; fi

fmt:
	$(CARGO) fmt --all

arm:
	tests/arm/smoke.sh

# libFuzzer needs switches that stable compilers hide; RUSTC_BOOTSTRAP shows them.
fuzz:
	@$(CARGO) fuzz --version > /dev/null 2>&1 || { \
	  echo 'cargo-fuzz is missing: cargo install --locked cargo-fuzz; the same entry points run as property'; \
	  echo 'tests in `make test`'; exit 1; }
	@for target in $(FUZZ_TARGETS); do \
	  echo "fuzz: $$target"; \
	  RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done
