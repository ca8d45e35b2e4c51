#!/bin/sh
# Writes the bill of materials of what is installed with a release, with licences and who needs whom: CycloneDX 1.6, JSON.
#
#   scripts/sbom.sh FILE      the hashes of what is listed are in requirements/runtime.txt
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
unset PYTHONPATH
. "$root/scripts/venv.sh"

[ "$#" -eq 1 ] || fail "usage: scripts/sbom.sh FILE"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
python=$(find_python) || fail "Python 3.11 or newer is needed and was not found"
"$python" -m venv "$work/sbom"
"$python" -m venv --without-pip "$work/lean"
tool="$work/sbom/bin/python"

"$tool" -m pip --disable-pip-version-check --no-input install -q --require-hashes -r "$root/requirements/sbom.txt"
"$tool" -m pip --disable-pip-version-check --no-input --python "$work/lean/bin/python" install -q \
    --require-hashes -r "$root/requirements/runtime.txt"
"$work/sbom/bin/cyclonedx-py" environment --pyproject "$root/pyproject.toml" --mc-type application \
    --sv 1.6 --of JSON --output-reproducible -o "$work/sbom.json" "$work/lean/bin/python"
"$tool" - "$work/sbom.json" "$root/requirements/runtime.txt" <<'PYTHON'
import json, re, sys

listed = {(part["name"].lower().replace("_", "-"), part["version"]) for part in json.load(open(sys.argv[1]))["components"]}
locked = set(re.findall(r"^([a-z0-9-]+)==(\S+)", open(sys.argv[2]).read(), re.MULTILINE))
if listed != locked:
    sys.exit(f"what is listed is not what is locked: {sorted(listed ^ locked)}")
PYTHON
cp "$work/sbom.json" "$1"
say "the bill of materials is written"
