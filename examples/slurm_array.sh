#!/bin/bash
# One job for each participant:
#   sbatch --array=1-N slurm_array.sh BIDS_DIR OUTPUT_DIR LIST_OF_LABELS [OPTION...]
# The program is what BRAINAGE names (a program or an Apptainer image, *.sif), else bids_brainage
# on PATH, else that in .venv of the folder from which the jobs were submitted.
#SBATCH --job-name=brainage
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=01:00:00
#SBATCH --requeue
set -euo pipefail

bids_dir=$(realpath "$1") output_dir=$(realpath -m "$2") labels=$3
shift 3
label=$(sed -n "${SLURM_ARRAY_TASK_ID}p" "$labels")
label=${label#sub-}
[[ -n $label ]] || { echo "$labels has no line $SLURM_ARRAY_TASK_ID" >&2; exit 2; }
# On node-local disk if you have it; a shared folder lets a requeued job take up its work.
work_dir=${WORK_DIR:-$output_dir/.work}/sub-$label

# Slurm runs a copy of this script, so what lies beside it is found from the folder of submission.
here=${SLURM_SUBMIT_DIR:-$PWD}/.venv/bin/bids_brainage
program=${BRAINAGE:-$(command -v bids_brainage || echo "$here")}
if [[ ! -e $program ]] && ! command -v "$program" >/dev/null; then
    echo "$program is not there: export BRAINAGE=/path/to/bids_brainage or brainage.sif" >&2
    exit 127
fi
options=(--participant-label "$label" --nprocs "$SLURM_CPUS_PER_TASK")

if [[ $program == *.sif ]]; then
    # Files that further options name must lie in the dataset, or be bound, too.
    mkdir -p "$output_dir" "$work_dir"
    exec apptainer run --cleanenv --containall \
        -B "$bids_dir:/data:ro" -B "$output_dir:/out" -B "$work_dir:/work" \
        "$program" /data /out participant "${options[@]}" -w /work "$@"
fi
exec "$program" "$bids_dir" "$output_dir" participant "${options[@]}" -w "$work_dir" "$@"
