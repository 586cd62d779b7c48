#!/bin/sh
# Start the program where nothing but the output folder may be writable.
set -eu

# Libraries want a folder for temporary files and a home.  With a read-only root and no tmpfs on
# /tmp, /dev/shm is what every container engine still gives.
scratch=
for folder in "${TMPDIR:-/tmp}" /tmp /dev/shm; do
    if [ -d "$folder" ] && [ -w "$folder" ]; then
        scratch=$folder
        break
    fi
done
if [ -z "$scratch" ]; then
    echo 'bids_brainage: no writable folder for temporary files: add --tmpfs /tmp' >&2
    exit 73
fi
home=$(mktemp -d "$scratch/bids_brainage-XXXXXX")
export TMPDIR="$scratch" HOME="$home"
export MPLCONFIGDIR="$home/matplotlib" NIPYPE_CONFIG_DIR="$home/nipype" XDG_CACHE_HOME="$home/cache"

if [ "$(id -u)" = 0 ]; then
    # shellcheck disable=SC2016  # the text is meant to be copied
    echo 'bids_brainage: running as root, so the outputs will belong to root;' \
        'with Docker add -u $(id -u):$(id -g)' >&2
fi
exec bids_brainage "$@"
