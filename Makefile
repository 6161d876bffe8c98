# `make` or `make help` lists the targets.
#
# As root on Debian, a target installs the packages that it needs with apt-get, and says so first, with their size
# (INSTALL_PACKAGES=no prevents it). Elsewhere it prints the command that installs them, and stops.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory

RUNTIME  := balena-extension-runtime
MANAGER  := balena-extension-manager
PROGRAMS := $(RUNTIME) $(MANAGER)

VERSION ?=
LIBC    ?= musl
ARCH    ?=
ENGINE  ?=
KERNEL  ?=
N       ?=
BASELINE ?=
PARTS   ?=
PROFILE ?= release
ARM     ?=
DESTDIR ?=
PREFIX  ?= /usr
ARCHS   ?=
VERIFY  ?=
CARGO   ?= cargo

# Always an explicit target: it keeps the flags for a static program away from proc macros and
# build scripts, which cannot be linked statically (see .cargo/config.toml).
HOST := $(shell uname -m)-unknown-linux-gnu
TEST := CARGO='$(CARGO)' tools/rust 'make test' >/dev/null && $(CARGO) test --locked --target $(HOST)

# The tests run on the programs that ship, unless the caller names others.
export RUNTIME_UNDER_TEST ?= $(CURDIR)/$(RUNTIME)
export MANAGER_UNDER_TEST ?= $(CURDIR)/$(MANAGER)

.PHONY: help build demo test built-tests unit model it packaging stress fuzz e2e test-arm test-boot vet vet-oldest bench bench-manager bench-kernel install uninstall deb \
	release documents diagram clean
# The tests of one target would disturb those of another. The engine tests come last.
.NOTPARALLEL:

help: ## list the targets
	@echo 'usage: make TARGET [NAME=VALUE]...'
	@echo
	@sed -n 's/^\([a-z0-9-]*\):.*## /  \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 17

build: ## build ./balena-extension-runtime and ./balena-extension-manager [VERSION= LIBC=musl|glibc|auto-glibc] [ARCH=aarch64|armv7|armv6|riscv64|x86_64: in target/ARCH]
	@ARCH='$(ARCH)' LIBC='$(LIBC)' VERSION='$(VERSION)' CARGO='$(CARGO)' tools/build

demo: | $(PROGRAMS) ## show the sample extension deployed and taken off, with the built runtime [ENGINE=docker: with a real dockerd; KERNEL=1: kernels of extensions on a simulated device]
	@ENGINE='$(ENGINE)' KERNEL='$(KERNEL)' tools/demo

# Emulated machines keep all processors busy: beside them, engines do not come up in time.
test: build built-tests unit it packaging stress fuzz $(if $(ARM),test-arm) e2e ## all tests: unit, black-box, packaging, stress, fuzz, engines (root; installs packages) [ARM=yes: also make test-arm]

# In one call of cargo, so that all processors have work.
built-tests:
	@tools/need 'make test' $(CC_NEEDS)
	$(TEST) --no-run --lib --test '*'

unit: ## unit tests only
	@tools/need 'make test' $(UNIT_NEEDS)
	$(TEST) --lib

# Not optimized: building all crates again would take longer than the exploration gains.
model: ## explore the protocol of kernel overrides further than `make unit` does: 8 minutes
	@tools/need 'make test' $(CC_NEEDS)
	$(TEST) --lib -- --ignored --nocapture --test-threads 1 protocol_tests

it: build ## black-box tests of the built programs only [RUNTIME_UNDER_TEST= MANAGER_UNDER_TEST=]
	@tools/need 'make test' $(IT_NEEDS)
	@# Most tests wait for a hook or an engine, not for a processor.
	$(TEST) --test it -- --test-threads="$$((2 * $$(nproc)))"

stress: build ## tests that kill or fault the programs at every system call, or cut the power [STRESS=full; default: a representative part]
	@tools/need 'make test' $(CC_NEEDS)
	$(TEST) --test stress

packaging: build ## tests of dist/: man pages, completions, snippets, the Debian package, boots of a real systemd
	@tools/need 'make packaging' $(PACKAGING_NEEDS)
	$(TEST) --test packaging

e2e: build ## tests on real dockerd, containerd and Podman only [ENGINE_ROWS=installed]
	@tools/need 'make e2e' $(E2E_NEEDS)
	$(TEST) --test engines

test-arm: ## tests on real ARM kernels (arm64, armhf), in machines that QEMU emulates [PARTS=sample,checks,..., see docs/architectures.md; PROFILE=dev: programs that are not optimized]
	@tools/need 'make test-arm' $(ARM_NEEDS)
	@CARGO='$(CARGO)' PARTS='$(PARTS)' PROFILE='$(PROFILE)' tools/arm-tests aarch64 armv7
	PARTS='$(PARTS)' $(TEST) --test arm

test-boot: build ## boot a machine with kernel overrides under QEMU, as an OS does, and cut its power (x86_64; see docs/boot-tests.md)
	@tools/need 'make test-boot' $(BOOT_NEEDS)
	$(TEST) --test boot -- --nocapture

vet: ## check formatting, lints, and licences and duplicates of the dependencies
	@CARGO='$(CARGO)' tools/vet

vet-oldest: ## check and lint lib and programs with the compiler in use, which is the oldest one in CI [RUSTUP_TOOLCHAIN=1.85.0]
	@CARGO='$(CARGO)' tools/rust 'make vet-oldest' | tail -n 1
	$(CARGO) clippy --locked --lib --bins --target $(HOST) --target-dir target/vet-oldest -- -D warnings

bench: ## measure time, memory and system calls of a container's life, compared with runc, crun and an older build [N=rounds BASELINE=path]
	@CARGO='$(CARGO)' N='$(N)' BASELINE='$(BASELINE)' tools/bench lifecycle

bench-manager: ## measure requests, time and memory of the manager, with 1,000 containers on a real dockerd and 10,000 recorded [N=rounds]
	@CARGO='$(CARGO)' N='$(N)' tools/bench manager

bench-kernel: ## measure how fast the kernel of an image is hashed and copied, beside sha256sum and cp [N=rounds]
	@CARGO='$(CARGO)' N='$(N)' tools/bench kernel

install: | $(PROGRAMS) ## install both programs in $(DESTDIR)$(PREFIX)/bin [DESTDIR= PREFIX=/usr]
	install -d '$(DESTDIR)$(PREFIX)/bin'
	install -m 0755 $(PROGRAMS) '$(DESTDIR)$(PREFIX)/bin'

uninstall: ## remove both programs from $(DESTDIR)$(PREFIX)/bin [DESTDIR= PREFIX=/usr]
	rm -f $(PROGRAMS:%='$(DESTDIR)$(PREFIX)/bin/%')

deb: | $(PROGRAMS) ## build a Debian package of the built programs, at the top of the checkout
	@tools/deb

release: ## make the files of a release in target/release-files: tarballs, packages, SBOMs, sums [VERIFY=1: twice, and compare; VERSION= ARCHS=]
	@CARGO='$(CARGO)' VERSION='$(VERSION)' ARCHS='$(ARCHS)' VERIFY='$(VERIFY)' tools/release

documents: ## generate the man pages, completions and list of crates in dist/
	CARGO='$(CARGO)' tools/rust 'make documents' >/dev/null
	WRITE_DOCUMENTS=1 $(CARGO) test --locked --target $(HOST) --lib -- cli::documents

diagram: ## draw docs/kernel-override.svg from its source
	@tools/need 'make diagram' dot=graphviz
	dot -Tsvg docs/kernel-override.dot -o docs/kernel-override.svg

# Only when they are missing: `sudo make install` must not build again, as another user.
$(PROGRAMS) &:
	@LIBC='$(LIBC)' VERSION='$(VERSION)' CARGO='$(CARGO)' tools/build

clean: ## remove everything that was built
	$(CARGO) clean
	rm -f $(PROGRAMS) $(RUNTIME)_*.deb

# COMMAND_OR_FILE=DEBIAN_PACKAGE (see tools/need).
CC_NEEDS  := cc=gcc libc.a=libc6-dev
UNIT_NEEDS := $(CC_NEEDS) grub-editenv=grub-common
IT_NEEDS  := $(CC_NEEDS) setsid=util-linux strace=strace mkfs.xfs=xfsprogs
PACKAGING_NEEDS := $(CC_NEEDS) systemd-analyze=systemd man=man-db lintian=lintian zsh=zsh fish=fish \
	/usr/share/bash-completion/bash_completion=bash-completion containerd=containerd podman=podman \
	crun=crun unshare=util-linux dpkg-deb=dpkg pip3=python3-pip dockerd=docker.io /usr/bin/docker=docker.io \
	/lib/systemd/systemd=systemd setpriv=util-linux hostname=hostname promtool=prometheus
ARM_NEEDS := $(CC_NEEDS) qemu-system-aarch64=qemu-system-arm dpkg-deb=dpkg
BOOT_NEEDS := $(CC_NEEDS) qemu-system-x86_64=qemu-system-x86 dpkg-deb=dpkg strip=binutils xz=xz-utils sfdisk=fdisk \
	mkfs.vfat=dosfstools mcopy=mtools mke2fs=e2fsprogs debugfs=e2fsprogs
E2E_NEEDS := $(CC_NEEDS) dockerd=docker.io /usr/bin/docker=docker.io containerd=containerd ctr=containerd \
	podman=podman conmon=conmon /usr/lib/podman/netavark=netavark crun=crun iptables=iptables \
	ip=iproute2 nsenter=util-linux debootstrap=debootstrap script=bsdutils \
	/usr/lib/python3/dist-packages/grpc=python3-grpcio

fuzz: ## fuzz every parser [SECONDS_EACH=5 TARGETS=names from fuzz/fuzz_targets]
	@CARGO='$(CARGO)' tools/fuzz $(SECONDS_EACH) $(TARGETS)

SECONDS_EACH ?= 5
TARGETS      ?=
