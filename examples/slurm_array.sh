#!/bin/bash
# One job for each participant:
#   sbatch --array=1-N slurm_array.sh BIDS_DIR OUTPUT_DIR LIST_OF_LABELS [OPTION...]
#SBATCH --job-name=brainage
#SBATCH --cpus-per-task=2
#SBATCH --mem=4G
#SBATCH --time=01:00:00
#SBATCH --requeue
set -euo pipefail

bids_dir=$1 output_dir=$2 labels=$3
shift 3
label=$(sed -n "${SLURM_ARRAY_TASK_ID}p" "$labels")
# On node-local disk if you have it; a shared folder lets a requeued job take up its work.
work_dir=${WORK_DIR:-$output_dir/.work}/sub-$label

exec bids_brainage "$bids_dir" "$output_dir" participant --participant-label "$label" \
    --nprocs "$SLURM_CPUS_PER_TASK" -w "$work_dir" "$@"
