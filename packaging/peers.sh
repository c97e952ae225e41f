#!/bin/sh
# peers.sh DIR: builds DIR/peers, the checks of three other programs as one (see docs/comparison.md). It takes some minutes and
# two gigabytes of modules, and is no part of any test.
set -eu
dir=$1
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$dir"
sed 1,2d "$here/peers/peers.go" >"$dir/main.go" # without the constraint that keeps it out of this module
cd "$dir"
[ -e go.mod ] || go mod init peers
go get tailscale.com@v1.102.5 github.com/letsencrypt/boulder@v0.20260901.0 github.com/influxdata/telegraf@v1.37.2
go build -mod=mod -o peers .
