#!/usr/bin/env bash
# Build the documentation site with warnings as errors: missing pages, dead links and anchors included.
#   scripts/docs.sh [FOLDER]     default: site
# Needs the extras export and docs (scripts/setup.sh export,docs). Nothing is fetched from the network.
set -euo pipefail
cd "$(dirname "$0")/.."
export NO_MKDOCS_2_WARNING=1 # an advertisement of the theme's, not a warning about this site
# Not --quiet: mkdocs then counts no warnings, and --strict lets them pass.
exec "${TMDEPLOY_VENV:-.venv}/bin/python" -m mkdocs build --strict --clean --site-dir "$(realpath -m "${1:-site}")"
