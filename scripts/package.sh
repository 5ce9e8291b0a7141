#!/bin/sh
# Build the source distribution and the wheel of lossviz into dist/ and check both.
#   scripts/package.sh            build and check
#   scripts/package.sh v0.1.0     and refuse if the version is not that of the tag
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh
make_environment .venv-package scripts/versions/package.txt "the first time: a few seconds"
python=.venv-package/bin/python
rm -rf dist
"$python" -m build --outdir dist . >/dev/null
"$python" -m twine check --strict dist/*
version=$(basename dist/*.whl | cut -d- -f2)
[ "${1:-v$version}" = "v$version" ] || fail "the tag is $1 and lossviz.__version__ is $version."
# The source distribution holds its tests and makes the same wheel; the wheel imports from anywhere.
"$python" -c '
import sys, tarfile, zipfile
sdist, wheel = sys.argv[1:]
held = {name.partition("/")[2] for name in tarfile.open(sdist).getnames()}
code = [name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("lossviz/")]
missing = [name for name in code if name not in held]
sys.exit(f"not in the source distribution: {missing}" if missing or "tests/test_report.py" not in held else 0)
' dist/*.tar.gz dist/*.whl
"$python" -m pip install -q --no-deps --force-reinstall dist/*.whl
found=$(cd / && "$OLDPWD/$python" -c 'import lossviz; print(lossviz.__version__)')
[ "$found" = "$version" ] || fail "the installed wheel says that its version is '$found'."
say "Built and checked: $(echo dist/*)"
