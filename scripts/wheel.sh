#!/bin/sh
# Builds what is released and tries it where the sources are not:
#
#   scripts/wheel.sh DIR      wheel and source archive into DIR, which must be empty or absent
#
# Both are built twice and must come out the same. The wheel is installed, by itself and with the locked packages, into
# an environment of its own; the demonstration and the first tests of a user run against it, in a place without src/.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
unset PYTHONPATH LOG_FORMAT PORT DB_PATH AIMESSAGE_HOME AIMESSAGE_AGENT AIMESSAGE_SERVER AIMESSAGE_USERNAME
. "$root/scripts/venv.sh"

[ "$#" -eq 1 ] || fail "usage: scripts/wheel.sh DIR"
[ ! -e "$1" ] || [ -z "$(ls -A "$1")" ] || fail "the directory is not empty: give another one, or empty it"
mkdir -p "$1"
target=$(CDPATH='' cd -- "$1" && pwd)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python=$(find_python) || fail "Python 3.11 or newer is needed and was not found"

environment() {  # $1: its name; the rest: lock files
    name=$1
    shift
    "$python" -m venv "$work/$name"
    for lock in "$@"; do
        "$work/$name/bin/python" -m pip --disable-pip-version-check --no-input install -q --require-hashes -r "$lock"
    done
}

say "building twice"
environment build "$root/requirements/build.txt"
mkdir "$work/sources"
(cd "$root" && cp -R src docs pyproject.toml README.md CHANGELOG.md SECURITY.md LICENSE .gitignore "$work/sources/")
for directory in "$target" "$work/again"; do
    (cd "$work/sources" && "$work/build/bin/python" -m hatchling build -t sdist -t wheel -d "$directory" >/dev/null 2>&1) \
        || fail "hatchling could not build: run python -m hatchling build to see why"
done
for file in "$target"/*; do
    cmp "$file" "$work/again/$(basename "$file")" || fail "two builds of the same sources differ"
done

say "installing the wheel alone, with the locked packages"
environment lean "$root/requirements/runtime.txt"
"$work/lean/bin/python" -m pip --disable-pip-version-check --no-input install -q --no-deps "$target"/*.whl
"$work/lean/bin/python" -m pip check >/dev/null
mkdir "$work/elsewhere"
cd "$work/elsewhere"
cp "$root/demo/demo.py" .
"$work/lean/bin/python" -c '
import pathlib, sys, aimessage
sys.exit(sys.argv[1] not in pathlib.Path(aimessage.__file__).parts)' site-packages || fail "this is not the wheel"
"$work/lean/bin/aimessage-server" --version
"$work/lean/bin/python" demo.py >/dev/null || fail "the demonstration failed with the wheel"

say "testing the wheel"
environment full "$root/requirements/dev.txt"
"$work/full/bin/python" -m pip --disable-pip-version-check --no-input install -q --no-deps "$target"/*.whl
cp -R "$root/tests" "$root/pyproject.toml" .
"$work/full/bin/python" -m pytest -q -p no:cacheprovider tests/e2e/test_quickstart.py tests/relay/test_app.py tests/cli

say "the source archive makes the same wheel"
mkdir "$work/unpacked"
tar -xzf "$target"/*.tar.gz -C "$work/unpacked"
(cd "$work/unpacked"/* && "$work/build/bin/python" -m hatchling build -t wheel -d "$work/third" >/dev/null 2>&1)
cmp "$target"/*.whl "$work/third"/*.whl || fail "the wheel of the source archive is another one"
say "built and tried: $(cd "$target" && echo *)"
