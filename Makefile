# make setup        install what is missing on this machine (Debian or Ubuntu), and say so
# make test         every test; which were skipped, and why, is told at the end
# make test-beside-load  the same while all CPUs are busy; SMALL=1: the executor's tests only, a minute
# make fuzz         what reads bytes from outside, by cargo-fuzz: SECONDS=60 each, or INPUTS=n; FUZZ="TARGET..." for some
# make test-swarm   the simulator over many seeds: SEEDS=2000 NODES=20 MINUTES=2
# make test-model   small clusters searched exhaustively, without the core's code: 5 minutes; SMALL=1: seconds
# make test-promql  the query language beside Prometheus itself, host metrics beside node_exporter
# make test-vm      stories of whole machines, in QEMU: STORY=NAME for one; minutes
# make test-boards  boards on a desk, by serial port and power switch: hw-tests/lab.toml says which; LAB=FILE: another list
# make test-fencing at-most-one jobs against what may happen to their holder: ROUNDS=50
# make test-upgrade agents of different levels beside each other, upgraded one after the other under load
# make test-ground  restarts, pulled cables, removed nodes, strangers, starts by hand: nothing ends or starts: ROUNDS=10; half an hour
# make test-guide   README and guide word for word, and what is printed; mistakes; 25 expectations; two machines with systemd
# make install      the programs, the service and the group weft, below /usr/local (PREFIX=): as root; make uninstall
# make demo         three nodes on this machine, until Ctrl-C; CI=1: ends by itself
# make bench        measure, print a table, write target/bench/results.json; SMALL=1: a few minutes, the core not optimized as in a release
# make bench-ebpf   what eBPF probes and series cost, how fast a fabric answers; writes target/bench/ebpf.json
# make bench-scale  10,000 nodes and two million allocations, simulated: an hour and a half, 20 GiB; SMALL=1: minutes
# make book         guide and reference (docs) as a book, in target/book: installs mdbook into target/tools
# make image        what nodes start from, into target/images/out: ARCH=x86_64 or aarch64; FORMAT=disk, netboot, container
# make test-image   builds all formats twice: the same bytes, and small enough; starts the container
# make deb          a Debian package of the agent and the command line, into target/packages: ARCH likewise
# make lint         formatting, clippy, documentation: warnings are errors

# Always the whole workspace, of which a part is run: so each crate is built once, with the features that all need.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
SEEDS ?= 2000
AIMED ?= $(shell expr $(SEEDS) / 10)
NODES ?= 20
MINUTES ?= 2
ROUNDS ?= 50
ARCH ?= x86_64
MDBOOK ?= 0.5.4

.PHONY: all setup build test test-all test-beside-load fuzz install uninstall test-vm test-boards test-swarm test-fencing test-ground test-guide test-upgrade test-model test-promql test-image demo bench bench-ebpf bench-scale book image deb lint
.DEFAULT_GOAL := all

all: build

setup:
	@demo/setup.sh

# The tests and the demo use the same programs.
build: setup
	$(CARGO) build --workspace --bins

test: setup
	@[ "$$(id -u)" = 0 ] || echo "make test: not root: the tests in network namespaces and on systemd will be skipped"
	@agent/tests/skipped.sh $(MAKE) --no-print-directory test-all

# What `make test` runs: skipped.sh reads what tests that pass have printed.
test-all:
	@agent/tests/side_by_side.py --each ground --first "ground,on_systemd,test_deb,weftd,fencing" "$(CARGO)" \
	    "agent/tests/on_systemd.sh {weftd}" \
	    "images/test_deb.sh $(TARGET)/debug" \
	    "images/test_install.sh $(TARGET)/debug" \
	    "agent/tests/two_machines.sh $(TARGET)/debug" \
	    "images/test_upgrade.sh $(TARGET)/debug" \
	    images/test_extensions.sh

# Built before: what is to be slow are the tests.
test-beside-load: setup
	$(CARGO) test --workspace --no-run --quiet
	@agent/tests/beside_load.sh $(if $(SMALL),$(CARGO) test --workspace --lib executor::,$(MAKE) --no-print-directory test)

fuzz: setup
	@SECONDS_EACH=$(SECONDS) INPUTS_EACH=$(INPUTS) fuzz/run.sh $(FUZZ)

test-swarm: setup
	$(CARGO) build --workspace --bin weft-sim
	$(TARGET)/debug/weft-sim swarm --seeds $(SEEDS) --nodes $(NODES) --minutes $(MINUTES)
	$(TARGET)/debug/weft-sim swarm --seeds $(AIMED) --nodes 8 --minutes 5 --aim-at-leases
	@for planted in \
	    "forgets-a-claim|--seeds 30 --nodes $(NODES) --minutes $(MINUTES)|never claimed twice" \
	    "believes-every-clock|--seeds 30 --nodes $(NODES) --minutes $(MINUTES)|one wrong clock changes no other" \
	    "forgets-disk|--seeds 30 --nodes 8 --minutes 10|more disk promised than its pool" \
	    "holds-a-lease-too-long|--seeds 30 --nodes 8 --minutes 5 --aim-at-leases|never has two live units" \
	    "voter-forgets|--seeds 30 --nodes 8 --minutes 5 --aim-at-leases|never has two live units" \
	    "retires-without-a-place|--seeds 30 --nodes 8 --minutes 10|a roll out " \
	    "knows-no-detours|--seeds 30 --nodes 8 --minutes 2|though two nodes cannot speak" \
	    "knows-no-births|--seeds 30 --nodes 3 --minutes 10|no two allocations share an identity" \
	    "higher-epoch-wins|--seeds 30 --nodes 3 --minutes 10|original is not ended for a copy" \
	    "places-unheard|--seeds 60 --nodes 3 --minutes 10|restarts of agents start nothing" \
	    "takes-over-unmet|--seeds 60 --nodes 3 --minutes 10|pulled cable concerns nobody" \
	    "starts-unprepared|--seeds 30 --nodes 3 --minutes 2|before it is prepared" \
	    "deaf-to-removal|--seeds 30 --nodes 3 --minutes 10|removed node runs nothing" \
	    "forgets-deletions|--seeds 30 --nodes 3 --minutes 10|stopped does not come back" \
	    "keeps-what-ended|--seeds 30 --nodes 3 --minutes 10|ended rows leave" \
	    "ignores-full|--seeds 30 --nodes 3 --minutes 10|counts only real holders" \
	    "writes-any-level|--seeds 30 --nodes 8 --minutes 2|is sent what it cannot read" \
	    "takes-unsigned|--seeds 30 --nodes $(NODES) --minutes $(MINUTES)|name that did not write it" \
	    "ignores-receivers|--seeds 30 --nodes $(NODES) --minutes $(MINUTES)|no datagram from a non member"; do \
	    IFS='|' read -r bug how promise <<<"$$planted"; \
	    echo "make test-swarm: the planted bug $$bug must be caught: $$promise"; \
	    $(TARGET)/debug/weft-sim swarm $$how --canary $$bug --until-broken "$$promise" \
	        --journals $(TARGET)/swarm/$$bug \
	        || { echo "make test-swarm: $$bug was not caught"; exit 1; }; \
	done; echo "make test-swarm: all planted bugs were caught"

test-model: setup
	$(CARGO) build --workspace --bin weft-model $(if $(SMALL),,--release)
	$(TARGET)/$(if $(SMALL),debug,release)/weft-model $(if $(SMALL),--small)

test-promql:
	@demo/setup.sh promql
	WEFT_MUST=prometheus $(CARGO) test --workspace --test promql -- --ignored --nocapture
	WEFT_MUST=prometheus $(CARGO) test --workspace --lib host::beside -- --include-ignored --nocapture
	WEFT_MUST=prometheus $(CARGO) test --workspace --test observing -- --include-ignored --nocapture

test-vm:
	@demo/setup.sh vm
	@[ "$$(id -u)" = 0 ] || { echo "make test-vm: needs root, for the owners of files on the machines' disks"; exit 1; }
	WEFT_VM=$(abspath $(TARGET))/vm hw-tests/build.sh
	$(if $(or $(if $(STORY),,all),$(filter boots_and_joins boards_join remote_shell upgrade_and_roll_back,$(STORY))),images/build.sh x86_64)
	$(if $(or $(if $(STORY),,all),$(filter netboots extends hotplug_usb,$(STORY))),FORMAT=netboot images/build.sh x86_64)
	$(if $(or $(if $(STORY),,all),$(filter extends,$(STORY))),images/extension.sh any weft-extended hw-tests/extension)
	$(if $(or $(if $(STORY),,all),$(filter mixed_architectures,$(STORY))),images/build.sh aarch64)
	$(if $(or $(if $(STORY),,all),$(filter upgrade_and_roll_back,$(STORY))),hw-tests/updates.sh x86_64)
	$(CARGO) build --workspace --bins
	WEFT_VM=$(abspath $(TARGET))/vm \
	$(if $(filter-out probes_%,$(STORY)),,WEFT_ORACLES=$$($(CARGO) test --workspace --test oracles --no-run 2>&1 \
	    | sed -n 's/.*(\(.*oracles-[0-9a-f]*\))$$/\1/p')) \
	    $(TARGET)/debug/weft-hw-tests $(STORY)

test-boards: setup
	$(CARGO) build --workspace --bin weft-hw-tests
	WEFT_LAB=$(abspath $(or $(LAB),$(WEFT_LAB),hw-tests/lab.toml)) $(TARGET)/debug/weft-hw-tests boards_join

test-fencing: setup
	WEFT_ROUNDS=$(ROUNDS) $(CARGO) test --workspace --test fencing -- --nocapture

# One story at a time, each with its figures; the first one that falls short makes it fail when all are told.
test-ground: build
	WEFT_GROUND_ROUNDS=$(if $(filter file,$(origin ROUNDS)),10,$(ROUNDS)) \
	    $(CARGO) test --workspace --test ground -- --nocapture --test-threads=1
	WEFT_COPYING_SECONDS=60 $(CARGO) test --workspace --test strangers -- --nocapture --test-threads=1
	$(CARGO) test --workspace --lib names_of_a_month -- --ignored --nocapture
	@program=$$($(CARGO) test --workspace --no-run 2>&1 | sed -n 's/.*(\(.*deps\/weftd-[0-9a-f]*\))$$/\1/p'); \
	WEFT_TEST_ENV="WEFT_FLOOD_SECONDS=30" agent/tests/on_systemd.sh "$$program" on_systemd_a_flood --nocapture; \
	WEFT_ROUNDS=$(ROUNDS) agent/tests/on_systemd.sh "$$program" whoever_starts_it --nocapture

install:
	$(CARGO) build --release --workspace --bin weftd --bin weft-helper --bin weft
	@images/install.sh $(TARGET)/release

uninstall:
	@images/install.sh --uninstall

# Every command of the guide and of README, word for word; what somebody new gets wrong, and expects: in a Debian that is new.
test-guide: build
	@programs=$$($(CARGO) test --workspace --no-run 2>&1 | sed -n 's/.*(\(.*deps\/\(guide\|mistakes\|expectations\)-[0-9a-f]*\))$$/\1/p'); \
	[ "$$(wc -w <<<"$$programs")" = 3 ] || { echo "make test-guide: the tests are not built"; exit 1; }; \
	for program in $$programs; do agent/tests/in_debian.sh "$$program" --nocapture; done
	images/test_install.sh $(TARGET)/debug
	agent/tests/two_machines.sh $(TARGET)/debug

test-upgrade: build
	$(CARGO) test --workspace --test upgrade -- --nocapture

demo: setup build
	@demo/demo.sh $(if $(CI),--once) $(TARGET)/debug/weftd $(TARGET)/debug/weft

bench:
	@demo/setup.sh bench
	@mkdir -p $(TARGET)/bench
	$(CARGO) build --release -p weft-agent -p weft-helper --bin weftd --bin weft-helper
	$(CARGO) bench $(if $(SMALL),--profile dev --workspace,-p weft-fabric) --bench placement | tee $(TARGET)/bench/placements.jsonl
	$(CARGO) bench $(if $(SMALL),--profile dev --workspace,-p weft-metrics) --bench store --bench query
	WEFT_AGENT=$(abspath $(TARGET))/release/weftd \
	    $(CARGO) bench --profile dev --workspace --bench fabric -- $(if $(SMALL),--small) \
	    --placements $(abspath $(TARGET))/bench/placements.jsonl

bench-ebpf:
	@demo/setup.sh bench
	@demo/setup.sh promql
	@mkdir -p $(TARGET)/bench
	$(CARGO) build --release -p weft-agent -p weft-helper --bin weftd --bin weft-helper
	$(CARGO) bench --profile dev --workspace --bench probes
	$(CARGO) bench -p weft-metrics --bench store --bench query | tee $(TARGET)/bench/metrics.jsonl
	WEFT_AGENT=$(abspath $(TARGET))/release/weftd \
	    $(CARGO) bench --profile dev --workspace --bench observing -- $(if $(SMALL),--small) \
	    --metrics $(abspath $(TARGET))/bench/metrics.jsonl

bench-scale: setup
	@CARGO="$(CARGO)" fabric/sim/bench_scale.sh $(abspath $(TARGET)) $(if $(SMALL),--small)

# Guide and reference as a book.
book:
	@[ -x $(TARGET)/tools/bin/mdbook ] || { echo "make book: installs mdbook into $(TARGET)/tools (some minutes)"; \
	    $(CARGO) install --quiet --locked --no-default-features --features search --version $(MDBOOK) --root $(TARGET)/tools mdbook; }
	$(TARGET)/tools/bin/mdbook build docs
	@echo "make book: $(TARGET)/book/index.html"

image: setup
	@images/build.sh $(ARCH)

test-image: setup
	@images/test_image.sh $(ARCH)

deb: setup
	@images/deb.sh $(ARCH)

lint: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items
