# A few words in front of Meson. `make` builds; `sudo make up` runs Flocker here; `sudo make test` tests everything.
BUILD   ?= build
prefix  ?= /usr
DESTDIR ?=

.PHONY: all deps up down test bench check install uninstall clean

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD)

$(BUILD)/build.ninja:
	@tools/install-deps build
	meson setup $(BUILD) --prefix=$(prefix)

up: all
	@tools/up $(BUILD)/flocker

down: all
	@tools/down $(BUILD)/flocker

test:
	@tools/test

bench: all
	@tools/bench $(BENCH)

check:
	@tools/check

install: all
	DESTDIR=$(DESTDIR) meson install -C $(BUILD) --no-rebuild

uninstall:
	ninja -C $(BUILD) uninstall

clean:
	rm -rf build build-*
