#!/bin/sh
# Run notebooks as on Colab: .venv-colab has Colab's versions, lossviz comes from a wheel, the folder is empty.
#   scripts/try_colab.sh                           one chapter that uses most of the package
#   scripts/try_colab.sh book/masks.ipynb ...      those you name
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh
[ $# -gt 0 ] || set -- book/one_number.ipynb

if [ -z "${PYTHON:-}" ]; then # Colab's Python, where it is to be had
    for candidate in python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13.*/bin/python3; do
        if usable "$candidate"; then PYTHON=$candidate && break; fi
    done
fi
make_environment .venv-colab scripts/versions/colab.txt "the first time: some 2 GB and a few minutes"
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
.venv-colab/bin/python -m pip wheel -q --disable-pip-version-check --no-deps -w "$wheels" . ||
    fail "the wheel of lossviz could not be built: see pip's message above."
say "Running $* with $(.venv-colab/bin/python --version)"
.venv-colab/bin/python scripts/as_on_colab.py "$wheels"/lossviz-*.whl "$@"
