# source setup_commands.sh      (bash or zsh, from any directory, as often as you like)
#
# Enters .venv beside this file, made when there is none, unless a virtual or conda environment is active;
# installs requirements.txt when something in it is missing; exports the locale that WandB needs.

if [ -n "${BASH_VERSION:-}" ] && [ "${BASH_SOURCE[0]}" = "$0" ]; then
    echo "error: a program cannot enter an environment for your shell; run: source setup_commands.sh" >&2
    exit 2
fi

_kaizen_setup() {
    local root env python
    root="$(CDPATH='' builtin cd -- "$(dirname -- "$1")" > /dev/null && pwd -P)" || return 1
    env="${VIRTUAL_ENV:-${CONDA_PREFIX:-}}"
    python=python3
    if [ -n "$env" ]; then python=python; fi

    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2> /dev/null; then
        echo "error: '$python' must be Python 3.10 or newer; install one, or activate an environment with it" >&2
        return 1
    fi

    if [ -z "$env" ]; then
        # activate is written last: without it an earlier attempt was cut short.
        if [ ! -f "$root/.venv/bin/activate" ] && ! python3 -m venv --clear "$root/.venv"; then
            echo "error: python3 -m venv could not make $root/.venv; its own message is above" >&2
            return 1
        fi
        . "$root/.venv/bin/activate"
    # A shell may inherit the variables without the PATH: pip would then fill some other Python.
    elif ! python -c 'import sys, os.path as p; sys.exit(p.realpath(sys.prefix) not in map(p.realpath, sys.argv))' \
        "${VIRTUAL_ENV:-}" "${CONDA_PREFIX:-}"; then
        echo "error: 'python' is not the one of $env; activate that again, or unset VIRTUAL_ENV CONDA_PREFIX" >&2
        return 1
    fi

    export LC_ALL=C.UTF-8 LANG=C.UTF-8

    # Any failure here, such as no packaging to compare versions with, leaves the decision to pip.
    python - "$root/requirements.txt" 2> /dev/null << 'PYTHON' && return 0
import sys
from importlib.metadata import version

from packaging.requirements import Requirement

for line in open(sys.argv[1], encoding="utf-8"):
    if text := line.partition("#")[0].strip():
        requirement = Requirement(text)
        if not requirement.specifier.contains(version(requirement.name), prereleases=True):
            sys.exit(1)
PYTHON
    if ! python -m pip install --requirement "$root/requirements.txt"; then
        echo "error: pip could not install $root/requirements.txt; its own message is above" >&2
        return 1
    fi
}

if _kaizen_setup "${BASH_SOURCE[0]:-$0}"; then
    unset -f _kaizen_setup
else
    unset -f _kaizen_setup
    return 1
fi
