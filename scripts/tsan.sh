#!/usr/bin/env bash
# Runs framebus-cuda's tests over the double of the driver under ThreadSanitizer: the
# double's streams are threads, so a buffer that is used again too early, or read before
# its event, is a data race. Only work that happens to overlap is seen: the double's own
# locks put much of it in an order that a GPU would not. Arguments go to the tests:
#   scripts/tsan.sh [NAME_OF_A_TEST...]
#
# Compilers that are not nightly have the sanitizer, but no sources of the standard
# library to build with it. So what it does not see there is told to it: see `shim`.
set -euo pipefail
# shellcheck source=scripts/env.sh
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$FB_ROOT"

target="$(rustc -vV | sed -n 's/^host: //p')"
case "$target" in
x86_64-*-linux-gnu | aarch64-*-linux-gnu) ;;
*) die "no ThreadSanitizer for $target" ;;
esac
std=("$(rustc --print sysroot)/lib/rustlib/$target/lib/"libstd-*.rlib)
[[ -r "${std[0]}" ]] || die "the standard library of $target is not where rustc says" "${std[0]}"

# A target folder of its own: nothing built here is of use elsewhere.
export CARGO_TARGET_DIR="$FB_TARGET/tsan"
mkdir -p "$CARGO_TARGET_DIR"
shim="$CARGO_TARGET_DIR/std.c"
suppressions="$CARGO_TARGET_DIR/suppressions"

# Locks, condition variables, `Once` and the end of a scoped thread have their slow paths
# in the compiled standard library, where the sanitizer does not see that one thread
# waits for another. The linker puts functions around them that say so. Their names
# differ from compiler to compiler.
symbol() {
    local found
    found="$(LC_ALL=C grep -a -o -h "_RNv[A-Za-z0-9_]*$1\b" "${std[0]}" | sort -u)" || true
    [[ -n "$found" && "$found" != *$'\n'* ]] ||
        die "the standard library of this compiler has no function like $1, or several" \
            "scripts/tsan.sh is made for that of $FB_RUST_PIN"
    echo "$found"
}
flags=()
# PATTERN BEFORE AFTER: statements around the call; a, b are its first two arguments.
around() {
    local name
    name="$(symbol "$1")"
    flags+=("-Clink-arg=-Wl,--wrap=$name")
    cat >>"$shim" <<END
long __real_$name(long, long, long, long, long, long);
long __wrap_$name(long a, long b, long c, long d, long e, long f) {
    $2
    long result = __real_$name(a, b, c, d, e, f);
    $3
    return result;
}
END
}
cat >"$shim" <<'END'
void __tsan_acquire(void *);
void __tsan_release(void *);
#define ACQUIRE(x) __tsan_acquire((void *)(x))
#define RELEASE(x) __tsan_release((void *)(x))
END
around 'mutex5futexNtB2_5Mutex14lock_contended' '' 'ACQUIRE(a);'
around 'rwlock5futexNtB2_6RwLock14read_contended' '' 'ACQUIRE(a);'
around 'rwlock5futexNtB2_6RwLock15write_contended' '' 'ACQUIRE(a);'
around 'condvar5futexNtB2_7Condvar4wait' 'RELEASE(b);' 'ACQUIRE(b);'
around 'condvar5futexNtB2_7Condvar12wait_timeout' 'RELEASE(b);' 'ACQUIRE(b);'
around 'once5futexNtB5_4Once4call' '' 'ACQUIRE(a); RELEASE(a);'
# The counter is one of the three words of its structure.
around 'ScopeData29decrement_num_running_threads' 'RELEASE(a); RELEASE(a + 8); RELEASE(a + 16);' ''
cc -O1 -fPIC -c -o "${shim%.c}.o" "$shim" || die "no C compiler, or it fails" "next: make setup"

# Not seen either: the fence where the last `Arc` goes, and the channel of the test
# program. A frame of either anywhere in a report's stacks hides the report.
cat >"$suppressions" <<'END'
race:alloc/src/sync.rs
race:CompletedTest
END

# `-rdynamic`: the double finds the sanitizer in the program that loads it.
flags+=(-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer -Clink-arg=-rdynamic \
    "-Clink-arg=${shim%.c}.o")
CARGO_ENCODED_RUSTFLAGS="$(IFS=$'\x1f' && echo "${flags[*]}")"
# As for the sanitizer's compiler flag; a child process ends with 66 after a report.
export RUSTC_BOOTSTRAP=1 CARGO_ENCODED_RUSTFLAGS
export TSAN_OPTIONS="suppressions=$suppressions exitcode=66"
# The kernels, too.
export "CXXFLAGS_${target//-/_}=-fsanitize=thread"
export FRAMEBUS_REQUIRE_ASSETS=1

say "building the double and the tests with ThreadSanitizer"
cargo build --quiet --target "$target" -p framebus-gpu-double
say "running the tests"
cargo test --quiet --target "$target" -p framebus-cuda --lib --tests --no-fail-fast -- "$@" ||
    die "tests failed or raced; the reports are above"
ok "no data race in what the tests did"
