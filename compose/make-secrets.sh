#!/bin/sh
# Write a password for each store into the folder `secrets` beside this file; those that are there stay.
# The folder is closed to others; the files are not, because the containers read them as users of their own.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets
for name in postgres neo4j redis; do
    [ -e "secrets/$name" ] || head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' > "secrets/$name"
done
[ -e secrets/neo4j_auth ] || printf 'neo4j/%s' "$(cat secrets/neo4j)" > secrets/neo4j_auth
chmod 644 secrets/*
