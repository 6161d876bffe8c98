# The front door. `make` or `make help` lists what there is.
#
# What a target needs from the system it installs by apt-get, as root on Debian, saying so first;
# elsewhere it names what is missing and stops.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory

RUNTIME  := balena-extension-runtime
MANAGER  := balena-extension-manager
PROGRAMS := $(RUNTIME) $(MANAGER)

VERSION ?=
LIBC    ?= auto
ENGINE  ?=
N       ?=
BASELINE ?=
DESTDIR ?=
PREFIX  ?= /usr
CARGO   ?= cargo

# An explicit target, always: it keeps the flags for a static binary away from proc macros and
# build scripts, which cannot be linked statically (see .cargo/config.toml).
HOST := $(shell uname -m)-unknown-linux-gnu
TEST := $(CARGO) test --locked --target $(HOST)

# The suite runs on what ships, unless the caller names other programs.
export RUNTIME_UNDER_TEST ?= $(CURDIR)/$(RUNTIME)
export MANAGER_UNDER_TEST ?= $(CURDIR)/$(MANAGER)

.PHONY: help build demo test unit it packaging stress fuzz e2e vet bench bench-manager install deb documents clean
# The tests of one target would disturb those of another, and the engine tests come last.
.NOTPARALLEL:

help: ## list the targets
	@echo 'usage: make TARGET [NAME=VALUE]...'
	@echo
	@sed -n 's/^\([a-z0-9-]*\):.*## /  \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 17

build: ## build ./balena-extension-runtime and ./balena-extension-manager [VERSION= LIBC=musl|glibc|auto]
	@LIBC='$(LIBC)' VERSION='$(VERSION)' CARGO='$(CARGO)' tools/build

demo: | $(PROGRAMS) ## deploy and remove the sample extension with the built runtime [ENGINE=docker: with a real dockerd]
	@ENGINE='$(ENGINE)' tools/demo

test: build unit it packaging stress fuzz e2e ## everything: unit, black-box, packaging, stress, fuzz and engine tests

unit: ## unit tests alone
	@tools/need 'make test' $(CC_NEEDS)
	$(TEST) --lib

it: build ## black-box tests alone, on the built programs [RUNTIME_UNDER_TEST= MANAGER_UNDER_TEST=]
	@tools/need 'make test' $(IT_NEEDS)
	$(TEST) --test it

stress: build ## killed and faulted at every system call [STRESS=full; default: a representative part]
	@tools/need 'make test' $(CC_NEEDS)
	$(TEST) --test stress

packaging: build ## tests of dist/: man pages, completions, snippets, the Debian package; boots with a real systemd
	@tools/need 'make packaging' $(PACKAGING_NEEDS)
	$(TEST) --test packaging

e2e: build ## engine tests alone: real dockerd, containerd and Podman
	@tools/need 'make e2e' $(E2E_NEEDS)
	$(TEST) --test engines

vet: ## formatting, lints, licences and duplicates of the dependencies
	@CARGO='$(CARGO)' tools/vet

bench: ## time, memory and system calls of a container's life, beside runc, crun and an older build [N=rounds BASELINE=path]
	@CARGO='$(CARGO)' N='$(N)' BASELINE='$(BASELINE)' tools/bench lifecycle

bench-manager: ## requests, time and memory of the manager, with 1,000 containers on a real dockerd and 10,000 recorded [N=rounds]
	@CARGO='$(CARGO)' N='$(N)' tools/bench manager

install: | $(PROGRAMS) ## put both programs under $(DESTDIR)$(PREFIX)/bin [DESTDIR= PREFIX=/usr]
	install -d '$(DESTDIR)$(PREFIX)/bin'
	install -m 0755 $(PROGRAMS) '$(DESTDIR)$(PREFIX)/bin'

deb: | $(PROGRAMS) ## a Debian package of the built programs, at the top of the checkout
	@tools/deb

documents: ## make the man pages, completions and list of crates in dist/ again
	WRITE_DOCUMENTS=1 $(TEST) --lib -- cli::documents

# Only when they are missing: `sudo make install` must not build again, as another user.
$(PROGRAMS) &:
	@LIBC='$(LIBC)' VERSION='$(VERSION)' CARGO='$(CARGO)' tools/build

clean: ## remove everything that was built
	$(CARGO) clean
	rm -f $(PROGRAMS) $(RUNTIME)_*.deb

# What has to be there, and the Debian package that brings it (see tools/need).
CC_NEEDS  := cc=gcc /usr/include/stdlib.h=libc6-dev
IT_NEEDS  := $(CC_NEEDS) setsid=util-linux strace=strace
PACKAGING_NEEDS := $(CC_NEEDS) systemd-analyze=systemd man=man-db lintian=lintian zsh=zsh fish=fish \
	/usr/share/bash-completion/bash_completion=bash-completion containerd=containerd podman=podman \
	crun=crun unshare=util-linux dpkg-deb=dpkg dockerd=docker.io /usr/bin/docker=docker.io \
	/lib/systemd/systemd=systemd setpriv=util-linux hostname=hostname
E2E_NEEDS := $(CC_NEEDS) dockerd=docker.io /usr/bin/docker=docker.io containerd=containerd ctr=containerd \
	podman=podman conmon=conmon /usr/lib/podman/netavark=netavark crun=crun iptables=iptables \
	ip=iproute2 nsenter=util-linux debootstrap=debootstrap script=bsdutils \
	/usr/lib/python3/dist-packages/grpc=python3-grpcio

fuzz: ## fuzz every parser [SECONDS_EACH=5 TARGETS=the ones in fuzz/fuzz_targets]
	@CARGO='$(CARGO)' tools/fuzz $(SECONDS_EACH) $(TARGETS)

SECONDS_EACH ?= 5
TARGETS      ?=
