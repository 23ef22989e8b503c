#!/bin/sh
# Lays the library, its headers and the command line down under a prefix, or takes them away again.
#
#   install.sh [--uninstall]    with PREFIX=/usr/local LIBDIR=$PREFIX/lib DESTDIR= in the environment
#
# Debug information is left out, four fifths of the library; INSTALL_STRIP=no keeps it.
# What is installed finds its parts from its own place, so that the tree may be moved afterwards
# (as long as LIBDIR is below PREFIX). docs/install.md lists the files.
set -eu
cd "$(dirname "$0")/.."

PREFIX=${PREFIX:-/usr/local}
LIBDIR=${LIBDIR:-$PREFIX/lib}
DESTDIR=${DESTDIR:-}
CARGO=${CARGO:-cargo}
built=${CARGO_TARGET_DIR:-target}/release

for path in "$PREFIX" "$LIBDIR"; do
    case $path in
    /*) ;;
    *)
        echo "install: PREFIX and LIBDIR must be absolute paths, not $path" >&2
        exit 1
        ;;
    esac
done
PREFIX=${PREFIX%/}
LIBDIR=${LIBDIR%/}
includedir=$PREFIX/include
bindir=$PREFIX/bin

number_of() { sed -n "s/^#define $1 \"\{0,1\}\([0-9.]*\)\"\{0,1\}\$/\1/p" include/segue.h; }

version=$(number_of SEGUE_VERSION)
abi_major=$(number_of SEGUE_ABI_VERSION_MAJOR)
abi_minor=$(number_of SEGUE_ABI_VERSION_MINOR)
case $(uname -s) in
Darwin) # Not tried out on a Mac yet.
    built_shared=libsegue.dylib
    shared=libsegue.$abi_major.$abi_minor.dylib
    soname=libsegue.$abi_major.dylib
    ;;
*)
    built_shared=libsegue.so
    shared=libsegue.so.$abi_major.$abi_minor
    soname=libsegue.so.$abi_major
    ;;
esac

uninstall() {
    rm -f "$DESTDIR$LIBDIR/$shared" "$DESTDIR$LIBDIR/$soname" "$DESTDIR$LIBDIR/$built_shared" \
        "$DESTDIR$LIBDIR/libsegue.a" "$DESTDIR$LIBDIR/pkgconfig/segue.pc" \
        "$DESTDIR$includedir/segue.h" "$DESTDIR$includedir/segue.hpp" "$DESTDIR$bindir/segue"
    # These two directories are the package's own.
    rm -rf "$DESTDIR$includedir/segue" "$DESTDIR$LIBDIR/cmake/segue"
    # These may be others' as well: they go if nothing else is in them.
    for directory in "$LIBDIR/cmake" "$LIBDIR/pkgconfig" "$LIBDIR" "$includedir" "$bindir"; do
        rmdir "$DESTDIR$directory" 2>/dev/null || true
    done
}

if [ "${1:-}" = --uninstall ]; then
    uninstall
    exit 0
fi

# `sudo make install` often has no cargo: then what `make build` has left is installed.
if command -v "$CARGO" >/dev/null 2>&1; then
    "$CARGO" build --release --lib --bin segue
elif [ -e "$built/$built_shared" ] && [ -e "$built/libsegue.a" ] && [ -e "$built/segue" ]; then
    echo "install: no cargo here; installing what was built before"
else
    echo "install: there is nothing built and no cargo to build it with; run make build first" >&2
    exit 1
fi

# What a static library of Rust needs of the system. The crates in it add nothing to what std needs;
# tests/packaging links a program that way.
native_libs() {
    if command -v rustc >/dev/null 2>&1; then
        # Into a directory of its own: a compiler that root runs replaces what -o names, even a device.
        scrap=$(mktemp -d)
        echo | rustc --crate-type staticlib --crate-name none --out-dir "$scrap" \
            --print native-static-libs - 2>&1 | sed -n 's/.*native-static-libs: //p'
        rm -rf "$scrap"
    fi
}
native=$(native_libs)
[ -n "$native" ] || native='-lgcc_s -lutil -lrt -lpthread -lm -ldl -lc'
cmake_native=$(echo "$native" | tr ' ' ';')

# From a directory below LIBDIR to the prefix, if there is a way down to it.
climb() { # climb DEPTH BASE
    case $LIBDIR/ in
    "$PREFIX"/*)
        path=$2
        below=${LIBDIR#"$PREFIX"}
        steps=$(($(printf '%s' "$below" | tr -cd / | wc -c) + $1))
        while [ "$steps" -gt 0 ]; do
            path=$path/..
            steps=$((steps - 1))
        done
        echo "$path"
        ;;
    *) echo "$PREFIX" ;;
    esac
}
# shellcheck disable=SC2016 # pkg-config expands it
pc_prefix=$(climb 1 '${pcfiledir}')
# shellcheck disable=SC2016 # pkg-config expands it
case $LIBDIR/ in
"$PREFIX"/*) pc_libdir='${prefix}'${LIBDIR#"$PREFIX"} ;;
*) pc_libdir=$LIBDIR ;;
esac
# shellcheck disable=SC2016 # CMake expands it
cmake_prefix=$(climb 2 '${_segue_here}')

case $("$built/segue" --version 2>/dev/null || true) in
*" $version"*) ;;
*)
    echo "install: $built/segue is not of version $version; run make build" >&2
    exit 1
    ;;
esac
case $(getconf LONG_BIT) in
32) pointer_bytes=4 ;;
*) pointer_bytes=8 ;;
esac

fill() { # fill TEMPLATE TARGET
    sed -e "s|@VERSION@|$version|g" \
        -e "s|@SHARED_FILE@|$shared|g" \
        -e "s|@SONAME@|$soname|g" \
        -e "s|@NATIVE_LIBS@|$native|g" \
        -e "s|@CMAKE_NATIVE_LIBS@|$cmake_native|g" \
        -e "s|@POINTER_BYTES@|$pointer_bytes|g" \
        -e "s|@PC_PREFIX@|$pc_prefix|g" \
        -e "s|@PC_LIBDIR@|$pc_libdir|g" \
        -e "s|@PC_INCLUDEDIR@|\${prefix}/include|g" \
        -e "s|@CMAKE_INCLUDEDIR@|$cmake_prefix/include|g" \
        "$1" >"$2"
    chmod 644 "$2"
}

install -d -m 755 "$DESTDIR$LIBDIR/pkgconfig" "$DESTDIR$LIBDIR/cmake/segue" \
    "$DESTDIR$includedir/segue" "$DESTDIR$bindir"
install -m 755 "$built/$built_shared" "$DESTDIR$LIBDIR/$shared"
ln -sf "$shared" "$DESTDIR$LIBDIR/$soname"
ln -sf "$soname" "$DESTDIR$LIBDIR/$built_shared"
install -m 644 "$built/libsegue.a" "$DESTDIR$LIBDIR/libsegue.a"
install -m 755 "$built/segue" "$DESTDIR$bindir/segue"
if [ "${INSTALL_STRIP:-yes}" != no ]; then
    # The names of functions stay, for backtraces.
    strip -S "$DESTDIR$LIBDIR/$shared" "$DESTDIR$LIBDIR/libsegue.a" "$DESTDIR$bindir/segue"
    if [ "$(uname -s)" = Linux ]; then
        # What rustc alone could use, to optimise across crates: two thirds of the rest.
        strip -S -R .llvmbc -R .llvmcmd "$DESTDIR$LIBDIR/libsegue.a"
    fi
fi
install -m 644 include/segue.h bindings/cpp/segue.hpp "$DESTDIR$includedir/"
# A header that a newer version has no more must not stay behind.
rm -f "$DESTDIR$includedir/segue/"*.hpp
install -m 644 bindings/cpp/segue/*.hpp "$DESTDIR$includedir/segue/"
fill bindings/pkgconfig/segue.pc.in "$DESTDIR$LIBDIR/pkgconfig/segue.pc"
fill bindings/cmake/segue-targets.cmake.in "$DESTDIR$LIBDIR/cmake/segue/segue-targets.cmake"
fill bindings/cmake/segue-config-version.cmake.in \
    "$DESTDIR$LIBDIR/cmake/segue/segue-config-version.cmake"
install -m 644 bindings/cmake/segue-config.cmake "$DESTDIR$LIBDIR/cmake/segue/segue-config.cmake"

echo "install: segue $version is in $DESTDIR$PREFIX, its libraries in $DESTDIR$LIBDIR"
if [ -z "$DESTDIR" ] && [ "$(uname -s)" = Linux ]; then
    echo "install: if programs do not find $soname, run ldconfig (as root)"
fi
