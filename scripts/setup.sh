#!/bin/sh
# Prepare this checkout: Debian's cross compiler and emulator, .venv, pinned Python dependencies, tvmtiny itself.
#
#   scripts/setup.sh [demo|test]      demo: what compiles and runs models; test (default): also the tests' tools
#
# Safe to repeat; when nothing has changed it ends at once. Environment:
#   PYTHON   the Python to build .venv with (3.11 to 3.13; default: the first one found)
set -eu

cd "$(dirname "$0")/.."
level=${1:-test}
case $level in demo | test) ;; *)
    echo "setup.sh: unknown level '$level': demo or test" >&2
    exit 2
    ;;
esac

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "setup: $*"
    exit 1
}

# --- Python -----------------------------------------------------------------------------------------------------

supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'

# A name on the path may still not run (version managers leave stubs), so each candidate is tried.
find_python() {
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
        if "$candidate" -c "$supported" >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
    done
}

# --- Debian packages --------------------------------------------------------------------------------------------

have() { command -v "$1" >/dev/null 2>&1; }

# newlib is there when the cross compiler knows where: else it repeats the bare file name.
have_newlib() {
    have arm-none-eabi-gcc || return 1
    case $(arm-none-eabi-gcc -print-file-name=libc.a) in */*) ;; *) return 1 ;; esac
}

missing_packages() {
    have gcc || printf ' gcc libc6-dev'
    have make || printf ' make'
    have arm-none-eabi-gcc || printf ' gcc-arm-none-eabi'
    have_newlib || printf ' libnewlib-arm-none-eabi'
    have qemu-system-arm || printf ' qemu-system-arm'
    if [ -z "$python" ]; then
        # Ubuntu 22.04's own python3 is 3.10, but it has 3.11 as well.
        if [ -z "$(apt-cache search --names-only '^python3\.11$' 2>/dev/null)" ]; then
            printf ' python3 python3-venv'
        else
            printf ' python3.11 python3.11-venv'
        fi
    elif [ ! -x .venv/bin/python ] && ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        "$python" -c 'import sys; print(" python%d.%d-venv" % sys.version_info[:2], end="")'
    fi
}

apt_install() {
    # Without recommended packages: qemu-system-arm recommends a desktop.
    line="apt-get install -y --no-install-recommends$1"
    if ! have apt-get; then
        fail "these Debian packages, or your system's equivalents, are needed:$1"
    elif [ "$(id -u)" = 0 ]; then
        sudo=
    elif have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        sudo=sudo
    else
        say "setup: system packages are missing and this user may not install them. Run this, then try again:"
        say "    sudo $line"
        exit 1
    fi
    say "setup: installing$1"
    $sudo apt-get update -qq >&2 || say "setup: package lists could not be updated; trying with those that are here"
    # shellcheck disable=SC2086 # $sudo may be empty, and $line is a list of words
    $sudo env DEBIAN_FRONTEND=noninteractive $line >&2 || fail "failed: $line"
}

# Twice, because the lists of a fresh machine are empty: which Python it can install is known after the first time.
for _ in 1 2; do
    python=$(find_python)
    packages=$(missing_packages)
    [ -n "$packages" ] || break
    apt_install "$packages"
done
python=$(find_python)
[ -n "$python" ] || fail "no Python 3.11, 3.12 or 3.13 found; set PYTHON to one"

# --- .venv ------------------------------------------------------------------------------------------------------

# A moved checkout, an upgraded Python or a copied .venv leaves one that does not run.
if ! .venv/bin/python -c "$supported; import pip" >/dev/null 2>&1; then
    say "setup: creating .venv with $("$python" --version)"
    "$python" -m venv --clear .venv >&2
fi

pip_install() { .venv/bin/python -m pip install --disable-pip-version-check --quiet "$@" >&2; }

# Run a step unless its stamp says that it was done with the same inputs: once STEP FUNCTION FILE...
once() {
    step=$1
    action=$2
    shift 2
    key=$(pwd; .venv/bin/python --version; cat "$@" scripts/setup.sh | cksum)
    stamp=.venv/setup-$step
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$key" ] && return
    rm -f "$stamp"
    if $action; then printf '%s\n' "$key" >"$stamp"; fi
}

install_runtime() {
    say "setup: installing the pinned Python dependencies and tvmtiny"
    pip_install -r requirements/runtime.txt || fail "the Python dependencies could not be installed"
    pip_install --no-deps --editable . || fail "tvmtiny could not be installed"
}

install_test() {
    say "setup: installing the tests' tools"
    pip_install -r requirements/runtime.txt -r requirements/test.txt || fail "the tests' tools could not be installed"
}

# The CPU build of torch is a tenth of the default one; its index is added only where it answers, because pip
# waits long for one that does not.
torch_index=https://download.pytorch.org/whl/cpu
reachable='import sys, urllib.request as request; request.urlopen(sys.argv[1] + "/torch/", timeout=5)'

install_train() {
    say "setup: installing torch (for the tests of the torch.export front end; this takes a while)"
    set -- -r requirements/runtime.txt -r requirements/train.txt
    if .venv/bin/python -c "$reachable" "$torch_index" >/dev/null 2>&1; then
        set -- "$@" --extra-index-url "$torch_index"
    fi
    pip_install "$@" && return
    say "setup: torch could not be installed: the tests that need it will be skipped"
    return 1
}

once runtime install_runtime requirements/runtime.txt pyproject.toml
if [ "$level" = test ]; then
    once test install_test requirements/runtime.txt requirements/test.txt
    once train install_train requirements/runtime.txt requirements/train.txt
fi
