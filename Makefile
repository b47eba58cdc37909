# Two commands on a fresh machine:
#   make demo    three hosts behind closed firewalls, on this one machine; ARGS=--web to look at them, and to join, by a browser
#   make test    the tests, those in network namespaces included
# Both set up what is missing first, or say what to install. And to measure:
#   make bench   lcroute on this machine; ARGS="--through lcroute,relay" beside the limit (docs/benchmarks.md)
# What takes too long for that, rough days, minutes of load, programs of others, lc0 without offloads, fuzzing:
#   make test-all
# And to look for inputs that nobody thought of:
#   make fuzz    all that is read from outside, SECONDS=90 in all; by cargo-fuzz, which it installs: fuzz/run names the version
# For browsers; Rust's standard library for WebAssembly is fetched where it is missing:
#   make wasm    the node compiles for WebAssembly
#   make web     the pages, in target/web; target/web/playground.html opens as it is
# For systems other than Linux; the same:
#   make other-systems    what programs need that are guests there compiles
# The README's picture, from a run of the demo:
#   make figures

CARGO_HOME ?= $(HOME)/.cargo
export PATH := $(CARGO_HOME)/bin:$(PATH)

# a pipe fails with any of its programs
SHELL = /bin/bash -o pipefail

PREFIX ?= /usr/local
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
PROGRAMS = lcroute lcsync lcagent lcgroup lcradio lcstudio
# what lcroute executes, or its services
EXECUTED = lcroute-lab lcroute-web lcroute-streams lcroute-outside lcroute-reach lcstudio-notes
ALL = $(PROGRAMS) $(EXECUTED)
TARGET = $(or $(CARGO_TARGET_DIR),target)
# with the features of the whole workspace: `make test` compiles none of it again
DEMO = cargo build --workspace --bin lcroute-demo $(if $(findstring --web,$(ARGS)),--bin lcroute-web) && $(TARGET)/debug/lcroute-demo
# tests that are ignored for their length, one at a time; others that are ignored are measurements
LONG = a_thousand_nodes_with_eight guesses_of_large_networks browser:: chaos:: clocks:: containers:: foreign:: hidden:: hundreds_of_leaves in_a_dht lan_programs:: matrix:: ports:: radio:: relay:: segment_programs:: a_forwarder_that_dies a_second_cable_between programs_on_a_standby guests_of_a_bridge_see two_members_in_the_two twelve_members who_is_away_beyond two_hundred_nodes_hold got_no_time_for_a_while was_suspended ansible_runs a_mesh_that_grows cables_of_three_routers the_module_does lies_of_every_kind groups_deputies:: groups_people:: radio_files:: radio_lan:: studio_decks:: whoever_waits_or_may_not short_uplink_is_found a_private_station_is_heard_by_a_token lcsync_loses_no_more a_killed_receiver_of_codes a_code_with_a_host_leads goes_by_four_words both_ends_of_a_code of_two_who_send_under_a_code late_comers_and_hostile_leaves two_keys_on_one_lan two_keys_behind_closed clocks_eleven_hours each_program_may_be_killed both_dial_at_once without_udp_and_behind a_stream_whose_link thousands_of_waiting two_keys_behind a_station_on_a_lan_needs stations_of_one_host a_station_without_a_server whoever_has_a_grant sound_a_screen_captions a_session_on_a_lan a_session_without_a_server without_udp_a_session a_session_of_a_host radio_step:: calls_of_an_open_key a_stranger_calls_an_open_key_on groups_files:: a_camera_freezes_less radio_call::a_call_behind radio_call::clicks_from radio_call::a_twentieth outside_dht:: outside_mapped:: groups_outside:: groups_devices:: groups_outside_all:: sound_crosses_the_uplink five_receivers_of_a_code of_which_not_all_is_held
# tests on plain LANs: offloads of lc0 make no difference there
WITHOUT_LC0 = lcsync_failures lcsync_hostile lcsync_keys lcsync_lan lcsync_mld the_lab

.PHONY: demo test test-all bench fuzz wasm web other-systems reference figures setup install

demo:
	netns-tests/setup demo
	@[ -e $(TARGET)/debug/lcroute-demo ] || echo "The first build takes some 15 minutes of processor time, shared by all processors; later ones take seconds."
	$(if $(findstring --web,$(ARGS)),-$(MAKE) web)
	$(DEMO) $(ARGS)

# property tests draw the same cases every time, so that none fails by chance; `make test-all` and `cargo test` draw
# others, and all of them. Simulations run fewer seeds, or shorter, where there are fewer than 256 cases
SEED = 2026
CASES = 64

# network tests wait more than they compute: the others compile and run beside them, and yield to them
THREADS = $(shell expr 4 \* $$(nproc))
TESTS = env PROPTEST_CASES=$(CASES) PROPTEST_RNG_SEED=$(SEED) RUST_TEST_THREADS=$(THREADS)
NETWORK = --test netns --test reference

test:
	netns-tests/setup test
ifneq ($(ARGS),)
	$(TESTS) cargo test --workspace $(ARGS) | $(COUNT)
else
	# programs execute others that lie beside them
	cargo build --workspace --bins
	$(TESTS) cargo test --workspace $(NETWORK) --no-run
	{ $(TESTS) netns-tests/once-more cargo test --workspace $(NETWORK) --no-fail-fast & network=$$!; \
	    until ! kill -0 $$network 2>/dev/null || pgrep --pgroup 0 '^netns-[0-9a-f]' >/dev/null; do sleep 0.1; done; \
	    nice -n 19 $(TESTS) cargo test --workspace --exclude netns-tests --no-fail-fast; others=$$?; \
	    wait $$network && [ $$others = 0 ]; } | $(COUNT)
endif

# the sum of all programs' results, and the names of failed tests; an error where a name in ARGS is no test's
COUNT = awk '{ print; fflush() } \
    /^test .* \.\.\. FAILED$$/ { names = names "\n    " $$2 } \
    /^once more, alone:/ { failed -= NF - 3; names = names "\n  of which, once more, alone:" } \
    /^test result:/ { passed += $$4; failed += $$6; ignored += $$8 } \
    END { if (passed + failed == 0) print "no test ran: is a name in ARGS wrong?" >"/dev/stderr"; \
        printf "%d passed, %d failed, %d skipped\n", passed, failed, ignored; \
        if (names) print "  failed:" names; exit passed + failed == 0 }'

# what `make test` leaves out for its length
test-all:
	$(MAKE) test SEED=$$(date +%s) CASES=256
	$(MAKE) fuzz
	netns-tests/setup all
	NETNS_OFFLOAD=off cargo test --workspace --test netns $(ARGS) -- $(WITHOUT_LC0:%=--skip %::)
	$(MAKE) web
	cargo test --manifest-path lcgroup/interop/Cargo.toml --target-dir target
	cargo test --manifest-path lcgroup/interop/Cargo.toml --target-dir target --features vectors vectors::
	cargo test --workspace $(ARGS) -- --ignored --nocapture --test-threads 1 $(LONG)

# what docs/reference.md says is what the programs say; a test fails while it is not
reference:
	REFERENCE=write cargo test --package netns-tests --test reference

# the README's picture is of a run of the demo; a test fails where it is of another
figures: setup
	$(DEMO) --json >docs/figures/demo.new
	mv docs/figures/demo.new docs/figures/demo.json
	docs/figures/demo.py <docs/figures/demo.json >docs/figures/demo.svg

bench:
	netns-tests/setup demo
	cargo run --release --package lcroute-lab --bin lcroute-lab -- bench $(ARGS)

fuzz:
	fuzz/run $(or $(SECONDS),90)

wasm:
	web/cargo build --package lcroute-node

web:
	for module in playground web-node web-radio web-studio web-get; do \
	    web/cargo rustc --package lcroute-$$module --lib --crate-type cdylib --profile web || exit; \
	done
	web/assemble $(TARGET)

other-systems:
	librecast/other-systems

setup:
	netns-tests/setup test

install:
	cargo build --release $(ALL:%=--package %) $(ALL:%=--bin %) --package packaging-generate --bin packaging-generate
	cargo build --release --package librecast-c --lib
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/lcroute $(DESTDIR)$(PREFIX)/share/lcroute
	$(TARGET)/release/packaging-generate $(TARGET)/release/made
	for made in $(TARGET)/release/made/*; do \
	    for part in man:man/man1 bash:bash-completion/completions zsh:zsh/site-functions fish:fish/vendor_completions.d; do \
	        [ ! -d "$$made/$${part%%:*}" ] || install -D --mode 644 --target-directory "$(DESTDIR)$(PREFIX)/share/$${part##*:}" "$$made/$${part%%:*}"/* || exit; \
	    done; \
	done
	install $(PROGRAMS:%=$(TARGET)/release/%) $(DESTDIR)$(PREFIX)/bin
	install $(EXECUTED:%=$(TARGET)/release/%) $(DESTDIR)$(PREFIX)/lib/lcroute
	web/install $(TARGET) $(DESTDIR)$(PREFIX)/share/lcroute/web
	install -D --mode 644 $(TARGET)/release/deps/liblibrecast_c.so $(DESTDIR)$(PREFIX)/lib/liblibrecast_c.so.0
	install -D --mode 644 --target-directory $(DESTDIR)$(PREFIX)/include/librecast-c librecast/c/include/librecast.h
	install -d $(DESTDIR)$(PREFIX)/lib/pkgconfig
	sed 's,@prefix@,$(PREFIX),; s,@libdir@,$(PREFIX)/lib,; s,@version@,$(VERSION),' librecast/c/librecast-c.pc.in >$(DESTDIR)$(PREFIX)/lib/pkgconfig/librecast-c.pc
