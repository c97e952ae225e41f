#!/bin/sh
# fuzz.sh TIME [CORPORA]: runs every fuzz target of the module for that long, one after the other. What it learnt is kept in the
# directory CORPORA from one night to the next; what crashes becomes a seed under testdata/fuzz, to be committed.
set -eu
corpora=${2:-}
cache=$(go env GOCACHE)/fuzz
if [ -n "$corpora" ]; then
  mkdir -p "$corpora" "$cache"
  cp -r "$corpora/." "$cache/"
fi
failed=
for package in $(go list ./...); do
  dir=$(go list -f '{{.Dir}}' "$package")
  for target in $(grep -ho '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go 2>/dev/null | cut -c6- | sort -u); do
    echo "== $package $target"
    go test "$package" -run '^$' -fuzz "^$target\$" -fuzztime "$1" || failed="$failed $target"
  done
done
[ -z "$corpora" ] || cp -r "$cache/." "$corpora/"
[ -z "$failed" ] || { echo "these found something:$failed"; exit 1; }
