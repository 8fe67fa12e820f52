#!/bin/sh
# Installs into a directory of its own, builds the examples from what was installed, with the shared library and with
# the static one, lets them talk over the installed server, and uninstalls. Run by `make test-install`.
set -eu

cd "$(dirname "$0")/../../.."
scratch=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$scratch"' EXIT
fail() { echo "install: $*" >&2; exit 1; }

${MAKE:-make} --no-print-directory install PREFIX=/opt/holepunch DESTDIR="$scratch"
prefix=$scratch/opt/holepunch
export PKG_CONFIG_PATH="$prefix/lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$scratch"

version=$("$prefix/bin/holepunch" --version)
[ "$version" = "holepunch $(pkg-config --modversion holepunch)" ] || fail "$version is not what pkg-config says"

# Of the static library only our functions are visible.
readelf --wide --syms "$prefix/lib/libholepunch.a" |
    awk '($5 == "GLOBAL" || $5 == "WEAK") && $7 != "UND" { print $8 }' | LC_ALL=C sort > "$scratch/symbols"
diff "$scratch/symbols" bindings/c/exports.txt || fail "libholepunch.a has other global symbols than exports.txt"

# Word splitting is how pkg-config is meant to be used.
# shellcheck disable=SC2046
cc examples/c/listener.c $(pkg-config --cflags --libs holepunch) -Wl,-rpath,"$prefix/lib" -o "$scratch/listener"
mkdir "$scratch/static"
cp "$prefix/lib/libholepunch.a" "$scratch/static"
# shellcheck disable=SC2046
cc examples/c/connector.c -L"$scratch/static" $(pkg-config --static --cflags --libs holepunch) -o "$scratch/connector"
readelf --dynamic "$scratch/listener" | grep -q 'NEEDED.*libholepunch.so.0' || fail "the listener is not linked to the SONAME"
! readelf --dynamic "$scratch/connector" | grep -q libholepunch || fail "the connector is not linked statically"

mkfifo "$scratch/events"
"$prefix/bin/holepunch" --json server --host 127.0.0.1 --port 0 2> "$scratch/events" &
server=$!
exec 3< "$scratch/events"
read -r listening <&3
HOLEPUNCH_SERVER=$(printf '%s\n' "$listening" | sed -n 's/.*"udp":\["\([^"]*\)".*/\1/p')
export HOLEPUNCH_SERVER
[ -n "$HOLEPUNCH_SERVER" ] || fail "the server does not say where it listens: $listening"
timeout 60 "$scratch/listener" install &
listener=$!
answers=$(timeout 60 "$scratch/connector" install one two)
wait "$listener" || fail "the listener failed"
[ "$answers" = "one
two" ] || fail "the answers are wrong: $answers"

${MAKE:-make} --no-print-directory uninstall PREFIX=/opt/holepunch DESTDIR="$scratch"
left=$(find "$prefix" ! -type d)
[ -z "$left" ] || fail "uninstall left $left"
echo "install: ok"
