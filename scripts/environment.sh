# Sourced by ../build.sh and ../test.sh: makes a Python environment and keeps it up to date.
# Needs nothing but a Python with pip; works without HOME, and after the checkout was moved.

say() { printf '==> %s\n' "$*"; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# 3.11 to 3.13 is what the pinned TensorFlow exists for.
usable() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

version() { "$1" -c 'import sys; print(sys.version_info[:3])' 2>/dev/null; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        usable "$PYTHON" || fail "PYTHON=$PYTHON is not a working Python 3.11, 3.12 or 3.13."
        echo "$PYTHON"
        return
    fi
    for candidate in python3 python3.11 python3.12 python3.13 python; do
        if usable "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "Python 3.11, 3.12 or 3.13 is needed and none was found; install one, or name it with PYTHON=/path/to/python."
}

# make_environment DIRECTORY REQUIREMENTS NOTE: an up-to-date environment costs one file comparison.
make_environment() {
    venv=$1
    # What the environment was made from; an editable install knows where the checkout was.
    wanted=$(pwd -P && cat requirements*.txt "$2")
    if [ -n "${PYTHON:-}" ]; then # another version than the environment has: make it anew
        python=$(find_python)
        [ "$(version "$python")" = "$(version "$venv/bin/python")" ] || rm -rf "$venv"
    fi
    if [ "$(cat "$venv/.made-from" 2>/dev/null)" = "$wanted" ] && usable "$venv/bin/python"; then
        return
    fi
    # A marker that is still there means that an installation was cut off: what it left cannot be trusted.
    if [ -e "$venv/.installing" ] || ! usable "$venv/bin/python" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        python=$(find_python)
        say "Making $venv with $("$python" --version 2>&1)"
        rm -rf "$venv"
        # Some systems ship venv without the pip it would copy: then the system's pip fills the environment.
        if "$python" -c 'import ensurepip' 2>/dev/null; then
            "$python" -m venv "$venv"
        else
            "$python" -m venv --without-pip "$venv" && "$python" -m pip --python "$venv/bin/python" install -q pip
        fi || fail "$python can not make a virtual environment; on Debian or Ubuntu install python3-venv."
    fi
    say "Installing $2 into $venv ($3)"
    rm -f "$venv/.made-from"
    : >"$venv/.installing"
    trap 'exit 130' INT TERM # without this some shells go on after Ctrl-C, as if pip had only failed
    "$venv/bin/python" -m pip install -q --disable-pip-version-check -r "$2" ||
        { rm "$venv/.installing" && fail "pip could not install $2 into $venv: see its message above."; }
    if [ "$venv" = .venv ]; then # for readers who open a notebook with this environment
        "$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . ||
            fail "pip could not install lossviz itself into $venv: see its message above."
    fi
    trap - INT TERM
    rm "$venv/.installing"
    printf '%s\n' "$wanted" >"$venv/.made-from"
}
