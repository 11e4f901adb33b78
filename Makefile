# ctctl: build, check and test. `make help` lists the targets.
.DEFAULT_GOAL := help
.NOTPARALLEL:
SHELL := /bin/bash

PREFIX  ?= /usr/local
DESTDIR ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# Found anew at each use, because `setup` may install one. A Go older than
# go.mod asks for fetches the right one itself unless the user forbids it.
GO = $(shell scripts/find-go.sh)
GOTOOLCHAIN ?= auto
export GOTOOLCHAIN
# libcontainer cannot do without cgo.
export CGO_ENABLED = 1
# mkfs.btrfs, nft and ip live in sbin.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin
# A checkout that belongs to somebody else makes git, and so go build, refuse.
export GOFLAGS := $(strip $(GOFLAGS) $(if $(findstring -buildvcs,$(GOFLAGS)),,-buildvcs=false))

TAGS    := netgo osusergo seccomp
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
LDFLAGS := -linkmode external -extldflags -static -s -w -X main.version=$(VERSION) -X main.builtFrom=$(COMMIT)
GO_TOOL  = $(GO) tool -modfile=tools/go.mod
SCRIPTS := $(wildcard scripts/*.sh) .ci/run

TEST_FLAGS    ?=
TEST_PACKAGES ?= ./...

# On CI a test that cannot run for want of something is a failure, not a skip.
ifdef CI
export CTCTL_TEST_STRICT := 1
endif

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: setup
setup: ## install what is needed to build, run and test (Debian; root or sudo)
	scripts/setup.sh

.PHONY: build
build: ## build bin/ctctl, one static binary
	@test -n "$(GO)"
	$(GO) build -trimpath -tags "$(TAGS)" -ldflags "$(LDFLAGS)" -o bin/ctctl ./cmd/ctctl
	@# What sudo built must not keep the checkout's owner from building.
	@[ "$$(id -u)" != 0 ] || chown -h --reference=. bin bin/ctctl

.PHONY: demo
demo: setup build ## show a running container snapshotted, wrecked and brought back (root)
	CTCTL=$(CURDIR)/bin/ctctl scripts/demo.sh

# At most two packages at a time: the integration tests run whole containers.
.PHONY: test
test: setup build ## run all tests (root; without root those that need it are skipped)
	CTCTL=$(CURDIR)/bin/ctctl $(GO) test -tags "$(TAGS)" -count=1 -p 2 -timeout 40m $(TEST_FLAGS) $(TEST_PACKAGES)

.PHONY: check
check: setup check-format check-vet check-static check-modules check-scripts check-arch check-unit ## everything but the long tests

.PHONY: check-format
check-format: # gofumpt
	@echo gofumpt -l .
	@unformatted=$$($(GO_TOOL) gofumpt -l .) || exit; \
	if [ -n "$$unformatted" ]; then printf 'not gofumpt-clean:\n%s\n' "$$unformatted" >&2; exit 1; fi

.PHONY: check-vet
check-vet: # go vet
	$(GO) vet -tags "$(TAGS) vm" ./...

.PHONY: check-static
check-static: # staticcheck
	$(GO_TOOL) staticcheck -tags "$(TAGS) vm" ./...

.PHONY: check-modules
check-modules: # go.mod and go.sum are tidy
	$(GO) mod tidy -diff
	cd tools && $(GO) mod tidy -diff

.PHONY: check-scripts
check-scripts: # shellcheck
	shellcheck $(SCRIPTS)

.PHONY: check-arch
check-arch: # the repository's own shape: layers, sizes, doors
	$(GO) test -tags "$(TAGS)" ./internal/arch/...

.PHONY: check-unit
check-unit: # short tests with the race detector; the end-to-end tests run a binary that has none
	$(GO) test -tags "$(TAGS)" -race -short -p 2 -timeout 20m $$($(GO) list -tags "$(TAGS)" ./... | grep -v '/integration$$')

# Regular expression that selects tests in integration/vm: make test-vm RUN=Doctor
RUN ?= .
VM_FLAGS ?=

.PHONY: test-vm
test-vm: setup ## boot virtual machines and run tests in them, RUN=… selects some (root; long)
	scripts/setup.sh --vm
	PATH="$(dir $(GO)):$$PATH" CTCTL_TEST_STRICT=1 $(GO) test -tags "$(TAGS) vm" -count=1 -timeout 8h -v -run '$(RUN)' $(VM_FLAGS) ./integration/vm

.PHONY: bench
bench: build ## measure frozen time, downtime and throughput (root)
	CTCTL=$(CURDIR)/bin/ctctl GO=$(GO) scripts/bench.sh

.PHONY: benchstat
benchstat: ## compare two benchmark files: make benchstat OLD=a.txt NEW=b.txt
	$(GO_TOOL) benchstat $(OLD) $(NEW)

.PHONY: install
install: build ## install the binary, man pages, completions and systemd unit below PREFIX
	install -D -m 0755 bin/ctctl $(DESTDIR)$(PREFIX)/bin/ctctl
	install -d $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	bin/ctctl man --dir $(DESTDIR)$(PREFIX)/share/man/man1
	bin/ctctl completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/ctctl
	install -d $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	bin/ctctl completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_ctctl
	bin/ctctl completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/ctctl.fish
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|@BIN@|$(PREFIX)/bin/ctctl|' scripts/ctctl.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/ctctl.service

.PHONY: deb
deb: build ## build a Debian package in bin/, with a CRIU of its own (root)
	scripts/deb.sh "$(VERSION)"

.PHONY: clean
clean: ## remove what was built
	rm -rf bin
