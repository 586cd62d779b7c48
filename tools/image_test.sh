#!/usr/bin/env bash
# Build the container image without a container engine, and run it as a hostile site would.
#
#   sudo make image-test
#
# Needs root, buildah, debootstrap, unshare and chroot (Debian: buildah debootstrap util-linux).
# The base image is made by debootstrap and handed over as the build argument BASE, so no image
# registry is used.  The container then runs with no network (own network namespace), a
# read-only root, a read-only input, an arbitrary user id and no tmpfs but /tmp.
#
# Settings (environment):
#   IMAGE_STATE      folder for storage and outputs                      (build/image)
#   DEBIAN_MIRROR    archive for debootstrap                             (debootstrap's own)
#   BUILDAH_ARGS     more arguments for `buildah build`, for example
#                    "-v /etc/pip.conf:/etc/pip.conf:ro"
#   IMAGE_DATASET    a further BIDS dataset to run                       (none)
#   IMAGE_LABEL      its participant                                     (all)
#   NATIVE_OUT       output of the native run on demo/bids to compare    (demo/out)
#   NATIVE_DATASET_OUT  the same for IMAGE_DATASET                       (none: not compared)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

STATE=${IMAGE_STATE:-build/image}
NATIVE_OUT=${NATIVE_OUT:-demo/out}
SUITE=bookworm
BASE=localhost/brainage-base:bookworm
IMAGE=localhost/bids/brainage:test
USER_ID=54321
TOLERANCE_YEARS=0.001
PYTHON=${PYTHON:-.venv/bin/python}
read -r -a buildah_args <<<"${BUILDAH_ARGS:-}"

say() { printf '%(%H:%M:%S)T %s\n' -1 "$*" >&2; }

check_tools() {
    local missing=() tool
    [ "$(id -u)" = 0 ] || missing+=('root rights')
    for tool in buildah debootstrap unshare chroot tar; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    [ -x "$PYTHON" ] || missing+=("$PYTHON (make install)")
    [ -d demo/bids ] || missing+=('demo/bids (make demo)')
    if [ "${#missing[@]}" -gt 0 ]; then
        printf 'image-test needs: %s\n' "$(IFS=,; echo "${missing[*]}")" >&2
        exit 127
    fi
}

# Layers share their files with overlayfs; where it cannot be mounted each is a whole copy (vfs),
# which takes ten times the disk.
storage_driver() {
    local probe=$STATE/probe driver=vfs
    mkdir -p "$probe"/{lower,upper,work,merged}
    if mount -t overlay overlay "$probe/merged" 2>/dev/null \
        -o "lowerdir=$probe/lower,upperdir=$probe/upper,workdir=$probe/work"; then
        umount "$probe/merged"
        driver=overlay
    fi
    rm -rf "$probe"
    echo "$driver"
}

configure_storage() {
    mkdir -p "$STATE"
    STATE=$(realpath "$STATE")
    export CONTAINERS_STORAGE_CONF=$STATE/storage.conf
    export BUILDAH_ISOLATION=chroot
    if [ ! -e "$CONTAINERS_STORAGE_CONF" ]; then
        cat >"$CONTAINERS_STORAGE_CONF" <<EOF
[storage]
driver = "$(storage_driver)"
graphroot = "$STATE/storage"
runroot = "$STATE/run"
EOF
    fi
}

make_base() {
    if buildah inspect --type image "$BASE" >/dev/null 2>&1; then
        return
    fi
    say "making $BASE by debootstrap"
    local root=$STATE/base container
    rm -rf "$root"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
        "$SUITE" "$root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$STATE/debootstrap.log"
    rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
    rm -rf "$root"/var/cache/apt/archives/*.deb
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$root" / >/dev/null
    buildah commit --quiet "$container" "$BASE" >/dev/null
    buildah rm "$container" >/dev/null
    rm -rf "$root"
}

build_image() {
    local start=$SECONDS
    say "building $IMAGE"
    buildah build --isolation chroot --network host --pull-never --layers \
        "${buildah_args[@]}" --build-arg "BASE=$BASE" --build-arg "REVISION=$(git rev-parse HEAD)" \
        -t "$IMAGE" . >"$STATE/build.log" 2>&1 || { tail -n 40 "$STATE/build.log" >&2; exit 1; }
    say "built in $((SECONDS - start)) s"
}

unpack_image() {
    local container
    container=$(buildah from --pull-never "$IMAGE")
    ROOT=$(buildah mount "$container")
    say "size $(du -sm "$ROOT" | cut -f1) MiB"
    # Variables and entry point as the image itself states them.
    buildah inspect --type image --format \
        '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' "$IMAGE" | sed '/^$/d' >"$STATE/env"
    mapfile -t ENTRYPOINT < <(buildah inspect --type image --format \
        '{{range .OCIv1.Config.Entrypoint}}{{println .}}{{end}}' "$IMAGE" | sed '/^$/d')
    WORKDIR=$(buildah inspect --type image --format '{{.OCIv1.Config.WorkingDir}}' "$IMAGE")
}

# enter IN OUT COMMAND...: run a command in the image; IN is mounted on /data, OUT on /out.
enter() {
    local in out
    in=$(realpath "$1") out=$(realpath "$2")
    shift 2
    mapfile -t variables <"$STATE/env"
    # shellcheck disable=SC2016  # expanded by the inner shell, in the new namespaces
    unshare --mount --net --pid --fork --propagation private bash -euc '
        root=$1 in=$2 out=$3 user=$4; shift 4
        mkdir -p "$root/data" "$root/out" "$root/proc" "$root/dev" "$root/tmp"
        mount --bind "$root" "$root"
        mount --bind "$in" "$root/data" && mount -o remount,bind,ro "$root/data"
        mount --bind "$out" "$root/out"
        mount -t proc proc "$root/proc"
        mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
        mount -t tmpfs -o mode=755 tmpfs "$root/dev"
        mkdir -m 1777 "$root/dev/shm"
        for device in null zero random urandom full tty; do
            touch "$root/dev/$device" && mount --bind "/dev/$device" "$root/dev/$device"
        done
        ln -s /proc/self/fd "$root/dev/fd"
        mount -o remount,bind,ro "$root"
        exec chroot --userspec="$user:$user" "$root" env -i "$@"
    ' enter "$ROOT" "$in" "$out" "$USER_ID" --chdir="$WORKDIR" "${variables[@]}" "$@"
}

empty_out() {
    rm -rf "${STATE:?}/$1"
    install -d -o "$USER_ID" -g "$USER_ID" "$STATE/$1"
}

# section NAME: lines of one section of singularity.def
section() { awk -v name="%$1" '/^%/ {inside = ($1 == name); next} inside' singularity.def; }

# expect STATUS OPTION...: the program must end with this status.
expect() {
    local wanted=$1 status=0
    shift
    enter demo "$STATE/none" "${ENTRYPOINT[@]}" "$@" >/dev/null 2>&1 || status=$?
    if [ "$status" != "$wanted" ]; then
        say "ended with $status instead of $wanted: $*"
        exit 1
    fi
}

test_contract() {
    say 'any user, read-only root, no network'
    empty_out none
    local version
    version=$(enter demo "$STATE/none" "${ENTRYPOINT[@]}" --version)
    [ "$version" = "bids_brainage $(cat "$ROOT/version")" ]
    [ "$(buildah inspect --type image --format \
        '{{index .OCIv1.Config.Labels "org.opencontainers.image.version"}}' "$IMAGE")" \
        = "$(cat "$ROOT/version")" ]
    if enter demo "$STATE/none" sh -c 'touch /written 2>/dev/null'; then
        say 'the root is writable: the test would prove nothing'
        exit 1
    fi
    enter demo "$STATE/none" python3 -c '
import socket
try:
    socket.create_connection(("192.0.2.1", 80), timeout=2)
except OSError as error:
    assert error.errno == 101, error  # network is unreachable
else:
    raise SystemExit("there is a network")'
    say 'exit statuses'
    expect 2 /data/bids /out nonsense
    expect 16 /data /out participant
    expect 18 /data/bids /out participant --participant-label nobody
    expect 66 /data/bids /out participant --models sfcn.none
    say 'runscript and test of singularity.def'
    enter demo "$STATE/none" sh -c "$(section environment; section test)"
    enter demo "$STATE/none" sh -c "$(section environment; section runscript)" run --help >/dev/null
}

# run_dataset NAME BIDS NATIVE [OPTION...]
run_dataset() {
    local name=$1 bids=$2 native=$3 start=$SECONDS
    shift 3
    say "running $name"
    empty_out "$name"
    enter "$bids" "$STATE/$name" "${ENTRYPOINT[@]}" /data /out participant "$@"
    say "$name took $((SECONDS - start)) s"
    if [ -n "$native" ]; then
        "$PYTHON" tools/compare_ages.py "$native" "$STATE/$name" --tolerance "$TOLERANCE_YEARS"
    fi
}

check_tools
configure_storage
make_base
build_image
unpack_image
test_contract
run_dataset demo demo/bids "$NATIVE_OUT"
if [ -n "${IMAGE_DATASET:-}" ]; then
    run_dataset dataset "$IMAGE_DATASET" "${NATIVE_DATASET_OUT:-}" \
        ${IMAGE_LABEL:+--participant-label "$IMAGE_LABEL"}
fi
say 'all passed'
