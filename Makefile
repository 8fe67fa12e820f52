# Builds and installs the C library, its header, and the `holepunch` command.
#
#   make                                     build for release
#   make install PREFIX=/usr DESTDIR=/tmp/x  header, libraries, holepunch.pc, command
#   make uninstall                           remove what install put there (same PREFIX and DESTDIR)
#   make test                                the tests of the C library
#   make test-install                        install into a temporary directory and use what is there
#
# Needs cargo, and binutils for the static library.

PREFIX     ?= /usr/local
BINDIR     ?= $(PREFIX)/bin
INCLUDEDIR ?= $(PREFIX)/include
LIBDIR     ?= $(PREFIX)/lib
DESTDIR    ?=

CARGO   ?= cargo
LD      ?= ld
OBJCOPY ?= objcopy
AR      ?= ar
INSTALL ?= install

VERSION  := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
# The number in the SONAME; bindings/c/build.rs says the same.
SOVERSION := 0
SONAME   := libholepunch.so.$(SOVERSION)
TARGET   := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
RELEASE  := $(TARGET)/release
OUT      := $(TARGET)/c

.PHONY: all build install uninstall test test-install
all: build

# Cargo knows best what is up to date, so it is always asked.
build:
	$(CARGO) build --release --locked --features cli --bin holepunch
	@mkdir -p $(OUT)
	$(CARGO) rustc --release --locked -p holepunch-c --lib -- --print native-static-libs 2> $(OUT)/build.log \
		|| { cat $(OUT)/build.log >&2; exit 1; }
	@sed -n 's/^note: native-static-libs: //p' $(OUT)/build.log | tail -n 1 > $(OUT)/libs
	@test -s $(OUT)/libs || { echo "rustc did not tell which libraries a static program needs" >&2; exit 1; }
	@# The archive of rustc has some two thousand global symbols; in this one only holepunch_* are. Sections with
	@# bitcode of the standard library go too: they are of no use, and plugins of ar trip over them.
	$(LD) -r --whole-archive $(RELEASE)/libholepunch.a -o $(OUT)/holepunch.o
	$(OBJCOPY) --wildcard --keep-global-symbol='holepunch_*' --strip-debug \
		--remove-section .llvmbc --remove-section .llvmcmd $(OUT)/holepunch.o
	@rm -f $(OUT)/libholepunch.a
	$(AR) rcs $(OUT)/libholepunch.a $(OUT)/holepunch.o
	@sed -e 's|@prefix@|$(PREFIX)|' -e 's|@includedir@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(INCLUDEDIR))|' \
		-e 's|@libdir@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(LIBDIR))|' \
		-e 's|@version@|$(VERSION)|' -e "s|@libs_private@|$$(cat $(OUT)/libs)|" \
		bindings/c/holepunch.pc.in > $(OUT)/holepunch.pc

install: build
	$(INSTALL) -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(LIBDIR)/pkgconfig
	$(INSTALL) -m 755 $(RELEASE)/holepunch $(DESTDIR)$(BINDIR)/holepunch
	$(INSTALL) -m 644 include/holepunch.h $(DESTDIR)$(INCLUDEDIR)/holepunch.h
	$(INSTALL) -m 755 $(RELEASE)/libholepunch.so $(DESTDIR)$(LIBDIR)/libholepunch.so.$(VERSION)
	ln -sf libholepunch.so.$(VERSION) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libholepunch.so
	$(INSTALL) -m 644 $(OUT)/libholepunch.a $(DESTDIR)$(LIBDIR)/libholepunch.a
	$(INSTALL) -m 644 $(OUT)/holepunch.pc $(DESTDIR)$(LIBDIR)/pkgconfig/holepunch.pc

uninstall:
	rm -f $(DESTDIR)$(BINDIR)/holepunch $(DESTDIR)$(INCLUDEDIR)/holepunch.h
	rm -f $(DESTDIR)$(LIBDIR)/libholepunch.so.$(VERSION) $(DESTDIR)$(LIBDIR)/$(SONAME)
	rm -f $(DESTDIR)$(LIBDIR)/libholepunch.so $(DESTDIR)$(LIBDIR)/libholepunch.a
	rm -f $(DESTDIR)$(LIBDIR)/pkgconfig/holepunch.pc

test:
	$(CARGO) test --locked -p holepunch-c

test-install:
	MAKE="$(MAKE)" bindings/c/tests/install.sh
