# One or two lines a target; logic lives in Rust. `make help` lists them.
CARGO ?= cargo
PACKAGES := --workspace
BINARIES := --workspace --bins
# cargo-nextest runs each test in a process of its own and keeps the heavy ones apart; cargo test runs them one by one.
NEXTEST := $(shell command -v cargo-nextest 2>/dev/null)
.DEFAULT_GOAL := help
.PHONY: help run demo test check fmt bench perf docs install uninstall deb setup fuzz audit asan tsan miri

help: ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build isatapd and run a router with defaults in the foreground (root)
	$(CARGO) build --release -q -p isatapd
	./target/release/isatapd --foreground --pidfile /run/isatapd-run.pid $(ARGS)

demo: setup ## router, two hosts and an IPv6-only server in namespaces of this machine (root)
	$(CARGO) build --release -q $(BINARIES)
	./target/release/isatap-demo

test: setup ## install what is needed, run every test (root)
	$(CARGO) build -q $(BINARIES) --examples
ifdef NEXTEST
	$(CARGO) nextest run $(PACKAGES) --no-fail-fast
else
	$(CARGO) test $(PACKAGES) --tests --no-fail-fast -- --test-threads 1
endif
	$(CARGO) test -q $(PACKAGES) --doc

check: ## what CI runs: formatting, clippy, tests
	./.ci/run

fmt: ## format the code
	$(CARGO) fmt --all

bench: ## criterion benches of the engine
	$(CARGO) bench -p isatap-bench

perf: setup ## isatapd beside peers in namespaces: table, JSON, page with plots (root)
	$(CARGO) build --release -q -p isatapd -p isatap-bench -p isatap-perf $(addprefix --bin ,isatapd isatap-baseline isatap-perf)
	./target/release/isatap-perf $(ARGS)

fuzz: ## every fuzz target for a minute; ARGS="--seconds 600 --coverage decap" (installs nightly, cargo-fuzz)
	@./tests/fuzz/setup.sh cargo-fuzz llvm-tools
	$(CARGO) run -q -p isatap-fuzz --bin isatap-fuzz -- $(ARGS)

asan: setup ## engine's tests and a daemon in namespaces under AddressSanitizer (root, nightly); ARGS="crash load"
	@./tests/fuzz/setup.sh
	./tests/asan.sh $(ARGS)

tsan: ## engine's and daemon's own tests under ThreadSanitizer (root, nightly); ARGS="capture"
	@./tests/fuzz/setup.sh rust-src
	./tests/tsan.sh $(ARGS)

miri: ## the pure modules of the engine and its buffers under Miri (nightly)
	@./tests/fuzz/setup.sh miri rust-src
	./tests/miri.sh $(ARGS)

audit: ## licences, sources and known vulnerabilities of every dependency (cargo-deny; the network)
	@command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --locked
	$(CARGO) deny --all-features check $(ARGS)

docs: ## man pages and completions under target/docs
	$(CARGO) run -q -p isatapd --example documents target/docs

install: docs ## programs, man pages, completions, unit, dashboards below DESTDIR and PREFIX (/usr/local)
	$(CARGO) build --release -q --locked -p isatapd
	./daemon/packaging/install.sh install

uninstall: ## what make install installed, but for the configuration
	./daemon/packaging/install.sh uninstall

deb: docs ## Debian package isatapd-rs under target/deb
	$(CARGO) build --release -q --locked -p isatapd
	./daemon/packaging/deb.sh target/release target/docs target/deb

setup: ## install Debian packages the tests need, if missing; make the guest with the kernel's own ISATAP
	@./tests/setup.sh $(SETUP)
# Only tests talk to the kernel's own ISATAP.
demo perf: SETUP := --no-guest
