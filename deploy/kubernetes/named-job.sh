#!/usr/bin/env bash
# Prints a kustomization whose Jobs are named by what they run: `named-job.sh FOLDER | kubectl apply -f -`.
#
# Kubernetes lets nobody change the pods of a Job, and runs a Job once. So another image, another argument or another
# setting needs a Job of another name. The name gets a digest of everything in the kustomization.
set -euo pipefail
manifests=$(kubectl kustomize "$1")
digest=$(sha256sum <<< "$manifests" | cut -c 1-8)
awk -v digest="$digest" '
    /^---$/ { in_job = 0 }
    /^kind: Job$/ { in_job = 1 }
    in_job && /^  name: / { $0 = $0 "-" digest; in_job = 0 }
    { print }
' <<< "$manifests"
