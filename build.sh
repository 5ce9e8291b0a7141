#!/bin/sh
# Set up .venv-book and build the book into _build/html from the stored outputs of the notebooks.
#   ./build.sh            build, say where the book is, end
#   ./build.sh --serve    then serve it at http://localhost:8000 (PORT=... for another port)
#   ./build.sh --run      first run every notebook anew (sets up .venv, with TensorFlow, for that)
# PYTHON=/path/to/python chooses the Python that a new environment is made with. LOSSVIZ_ADDRESS=https://... says where
# the book will be published, unless that is GitHub's pages of the remote "origin": its notebooks install from there.
set -eu
cd "$(dirname "$0")"
. scripts/environment.sh

run='' serve=''
for option in "$@"; do
    case $option in
    --run) run=yes ;;
    --serve) serve=yes ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' build.sh && exit ;;
    *) fail "unknown option '$option'; try ./build.sh --help" ;;
    esac
done

if [ "$run" ]; then
    make_environment .venv requirements.txt "the first time: some 2 GB and a few minutes"
    say "Running every notebook"
    .venv/bin/python scripts/run_notebooks.py
fi

make_environment .venv-book requirements-book.txt "the first time: some 300 MB and a minute"
say "Building the book"
rm -rf _build/html # no page of an earlier build stays
mkdir -p _build
# --all: an incremental build does not repeat the warnings of the one before.
build="import sys; from jupyter_book.cli.main import main; sys.exit(main())"
if ! .venv-book/bin/python -c "$build" build . --all -W --keep-going -q >_build/book.log; then
    cat _build/book.log
    fail "the book was not built; each warning above counts as an error."
fi
# The site's own wheel, and notebooks to download that install it.
.venv-book/bin/python scripts/install_cell.py _build/html || fail "the wheel for the notebooks was not built."
.venv-book/bin/python scripts/index_search.py _build/html _toc.yml >>_build/book.log 2>&1 || {
    cat _build/book.log
    fail "the index of the search was not made."
}
say "The book is ready: open $(pwd -P)/_build/html/index.html"

if [ "$serve" ]; then
    say "Serving it at http://localhost:${PORT:-8000} (Ctrl-C ends)"
    exec .venv-book/bin/python -m http.server -d _build/html "${PORT:-8000}"
fi
