#!/bin/sh
# release.sh DIR: builds everything that is released into DIR: for amd64 and arm64 a tarball, a deb and an rpm, each with its
# bill of materials (CycloneDX), and the checksums of all. The same commit gives the same bytes.
# VERSION, ARCHES and SOURCE_DATE_EPOCH may be given; they come from the build information and the commit otherwise.
set -eu
umask 022
cd "$(dirname "$0")/.."
mkdir -p "$1"
dist=$(cd "$1" && pwd)
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1767225600)}"
export CGO_ENABLED=0 GOOS=linux LC_ALL=C TZ=UTC
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
host=$(go env GOHOSTARCH)

build() { GOARCH=$1 go build -trimpath -ldflags='-s -w' -o "$2" ./cmd/authvigil; }
pack() { gzip -9 -n; }

# what does not depend on the architecture is written by the program itself
build "$host" "$work/authvigil"
if [ -z "${VERSION:-}" ]; then
	VERSION=$(go version -m "$work/authvigil" | awk '$1 == "mod" {print $3}')
	case $VERSION in v[0-9]*) VERSION=${VERSION#v} ;; *) VERSION=0.0.0-devel ;; esac
	# a package's version has a ~ where it comes before the release, and no other hyphen
	VERSION=$(printf %s "$VERSION" | sed 's/+.*//; s/-/~/; s/-/./g')
fi
export VERSION
mkdir "$work/man" "$work/completions" "$work/doc"
"$work/authvigil" man "$work/man"
for page in "$work"/man/*; do pack <"$page" >"$page.gz"; rm "$page"; done
for shell in bash zsh fish; do "$work/authvigil" completion "$shell" >"$work/completions/authvigil.$shell"; done
printf 'authvigil (%s-1) unstable; urgency=medium\n\n  * Release of %s; what changed stands in changelog.gz.\n\n -- authvigil maintainers <maintainers@authvigil.example>  %s\n' \
	"$VERSION" "$VERSION" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" | pack >"$work/doc/changelog.Debian.gz"
pack <CHANGELOG.md >"$work/doc/changelog.gz"

for ARCH in ${ARCHES:-amd64 arm64}; do
	export ARCH OUT="$work/$ARCH"
	mkdir "$OUT"
	build "$ARCH" "$OUT/authvigil"
	cp -r "$work/man" "$work/completions" "$work/doc" "$OUT/"
	for format in deb rpm; do
		go tool -modfile=packaging/tools.mod nfpm package --config packaging/nfpm.yaml --packager "$format" --target "$dist/" >&2
	done
	name="authvigil_${VERSION}_linux_$ARCH"
	mkdir "$work/$name"
	cp -r "$OUT/authvigil" "$OUT/man" "$OUT/completions" systemd config.toml.example README.md SECURITY.md CHANGELOG.md LICENSE packaging/prometheus "$work/$name/"
	find "$work/$name" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --format=ustar -cf - "$name" | pack >"$dist/$name.tar.gz"
	GOARCH= GOOS= go run ./packaging/sbom "$OUT/authvigil" "$VERSION" >"$dist/$name.cdx.json"
done
cd "$dist"
sha256sum ./*.deb ./*.rpm ./*.tar.gz ./*.cdx.json | sed 's, \./,  ,; s,   ,  ,' >SHA256SUMS
