#!/bin/sh
# Pass the tests with other versions of Keras, TensorFlow and NumPy than the pinned ones, in .venv-NAME.
#   scripts/test_versions.sh oldest [pytest arguments]    the floors of pyproject.toml: the unit tests
#   scripts/test_versions.sh newest [pytest arguments]    whatever is newest today: unit tests and notebooks
set -eu
cd "$(dirname "$0")/.."
. scripts/environment.sh
name=${1:-}
stack='^(numpy|tensorflow|tensorflow-cpu|tensorboard|keras|matplotlib|pandas|pillow|jax)=='
pins=$(mktemp ./.versions-XXXXXX) # beside requirements-book.txt, which it includes
trap 'rm -f "$pins"' EXIT
case $name in
oldest) # the tools as pinned; no second backend: this JAX is not for so old a Keras
    grep -vE "$stack" requirements.txt >"$pins"
    cat scripts/versions/oldest.txt >>"$pins"
    ;;
newest) sed -E "/$stack/s/==[^;]*//" requirements.txt >"$pins" ;;
*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
shift
[ "$name" = oldest ] || rm -f ".venv-$name/.made-from" # newest: look again
[ $# -gt 0 ] || { [ "$name" = newest ] || set -- tests; }
make_environment ".venv-$name" "$pins" "some 2 GB and a few minutes"
say "Running the tests with"
".venv-$name/bin/python" -m pip list | grep -E '^(numpy|tensorflow|keras|matplotlib)' # what stands in the log
".venv-$name/bin/python" -m pytest -n 2 --nbval-sanitize-with=scripts/versions/sanitize.cfg "$@"
