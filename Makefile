# A few words in front of Meson. `make` builds; `sudo make up` runs Flocker here; `sudo make test` tests everything.
BUILD   ?= build
prefix  ?= /usr
DESTDIR ?=

.PHONY: all up down demo test sim sanitize fuzz soak bench check install uninstall clean

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD)

$(BUILD)/build.ninja:
	@tools/install-deps build
	meson setup $(BUILD) --prefix=$(prefix)

up: all
	@tools/up $(BUILD)/flocker

down: all
	@tools/down $(BUILD)/flocker

demo: all
	@tools/demo $(BUILD)/flocker

test:
	@tools/test

sim: $(BUILD)/build.ninja
	@ninja --quiet -C $(BUILD) tests/sim/sim
	@$(BUILD)/tests/sim/sim $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),10000))

sanitize:
	@tools/sanitize

fuzz:
	@tools/fuzz $(SECONDS)

soak:
	@tools/soak $(MINUTES)

bench:
	@tools/bench $(BENCH)

check:
	@tools/check

install: all
	@meson introspect --buildoptions $(BUILD) | grep -q '"name": "prefix", "value": "$(prefix)"' || \
		{ meson configure $(BUILD) -Dprefix=$(prefix) && ninja -C $(BUILD); }
	DESTDIR=$(DESTDIR) meson install -C $(BUILD) --no-rebuild
	@[ -n "$(DESTDIR)" ] || [ ! -d /run/systemd/system ] || systemctl daemon-reload

uninstall:
	@DESTDIR=$(DESTDIR) tools/uninstall $(BUILD)

clean:
	rm -rf build build-*
