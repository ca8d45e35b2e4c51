# Sourced by ./start.sh and ./test.sh: finds a Python, makes .venv beside this project and installs what is locked.
#
# The caller sets $root. A stamp in .venv holds a digest of everything that was installed from, so that a second
# run costs a tenth of a second and needs no network. Everything said goes to stderr; with LOG_FORMAT=json as JSON.
# shellcheck shell=sh

venv="$root/.venv"

say() {  # $1: one plain sentence without quotes or backslashes; $2: level
    if [ "${LOG_FORMAT:-}" = json ]; then
        printf '{"event":"%s","level":"%s","logger":"start"}\n' "$1" "${2:-info}" >&2
    else
        printf '%s\n' "$1" >&2
    fi
}

fail() {
    say "$1" error
    exit 1
}

find_python() {
    for candidate in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

digest() {  # of the arguments' bytes and of where the environment stands
    "$venv/bin/python" -c '
import hashlib, pathlib, sys
parts = [sys.version, sys.argv[1], *(pathlib.Path(name).read_bytes().hex() for name in sys.argv[2:])]
print(hashlib.sha256("|".join(parts).encode()).hexdigest())' "$root" "$@"
}

stamped() {  # $1: stamp name; the rest: the files that it covers
    name=$1
    shift
    [ -x "$venv/bin/python" ] && [ -x "$venv/bin/aimessage" ] && [ -f "$venv/$name.stamp" ] \
        && [ "$(cat "$venv/$name.stamp")" = "$(digest "$@" 2>/dev/null)" ]
}

pip_quietly() {  # pip talks into a file: it has no JSON, and a newcomer needs none of it
    if ! "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@" >>"$venv/install.log" 2>&1; then
        [ "${LOG_FORMAT:-}" = json ] || tail -n 15 "$venv/install.log" >&2
        fail "the installation failed: .venv/install.log says why, and another run starts over"
    fi
}

install_into_venv() {  # $1: stamp name; the rest: lock files
    name=$1
    shift
    if ! "$venv/bin/python" -c 'import pip' >/dev/null 2>&1; then
        python=$(find_python) \
            || fail "Python 3.11 or newer is needed and was not found: install it, or set PYTHON to where it is"
        say "making .venv with $("$python" -c 'import platform; print("Python", platform.python_version())')"
        rm -rf "$venv"
        "$python" -m venv "$venv" >/dev/null 2>&1 \
            || fail "this Python cannot make a virtual environment: install its venv package (Debian: python3-venv)"
    fi
    : >"$venv/install.log"
    say "installing the locked packages, each checked against its hash (a minute, once)"
    for lock in "$@"; do
        pip_quietly install --require-hashes -r "$lock"
    done
    pip_quietly install --no-build-isolation --no-deps -e "$root"
    digest "$@" "$root/pyproject.toml" >"$venv/$name.stamp"
}

ready() {  # $1: stamp name; the rest: lock files
    name=$1
    shift
    stamped "$name" "$@" "$root/pyproject.toml" || install_into_venv "$name" "$@"
}
