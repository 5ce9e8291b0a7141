#!/bin/sh
# Set up .venv and pass the tests: the unit tests, and notebooks of the book, run anew and compared.
#   ./test.sh                    all but the long sets, of which a sample runs
#   ./test.sh --long             everything
#   ./test.sh --notebooks        the sample, and every notebook
#   ./test.sh tests/test_x.py    what you name; all arguments go to pytest (-x, -k word, -n 0, ...)
# PYTHON=/path/to/python chooses the Python that a new environment is made with.
set -eu
cd "$(dirname "$0")"
. scripts/environment.sh
make_environment .venv requirements.txt "the first time: some 2 GB and a few minutes"
say "Running the tests"
exec .venv/bin/python -m pytest -n 2 "$@"
