#!/usr/bin/env bash
# Installs is-db-bootstrap for the action: `install.sh PYTHON`.
#
# Without REQUIREMENT it is the action's own source, in GITHUB_ACTION_PATH: what a tag, a branch or a
# commit of the action holds is what runs, and no index decides. Dependencies are those whose digests
# requirements/run.txt lists. ACTION_REF is what the workflow has behind the action's `@`.
set -euo pipefail
python=$1
pip=("$python" -m pip --disable-pip-version-check install --quiet)

if [ -n "${REQUIREMENT:-}" ]; then
    "${pip[@]}" "$REQUIREMENT"
    exit
fi

"${pip[@]}" --require-hashes --requirement "$GITHUB_ACTION_PATH/requirements/run.txt"
"${pip[@]}" --no-deps --no-build-isolation "$GITHUB_ACTION_PATH"

version=$("$python" -c 'from importlib.metadata import version; print(version("is-db-bootstrap"))')
reference=${ACTION_REF:-}
if [[ $reference =~ ^v[0-9]+(\.[0-9]+)*$ ]]; then
    if [[ v$version. != "$reference".* ]]; then
        echo "::error::The tag $reference of the action holds is-db-bootstrap $version."
        exit 1
    fi
else
    echo "::notice::is-db-bootstrap $version, from the source at ${reference:-this commit} of the action."
fi
