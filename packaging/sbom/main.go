// Command sbom writes the bill of materials of a built Go program in the form of CycloneDX 1.6: what the linker recorded in
// it, and nothing that is not in it. The same program gives the same bytes.
//
//	go run ./packaging/sbom PROGRAM VERSION > authvigil.cdx.json
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: sbom PROGRAM VERSION")
		os.Exit(2)
	}
	if err := write(os.Stdout, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version"`
	PURL       string     `json:"purl"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref string   `json:"ref"`
	On  []string `json:"dependsOn"`
}

func write(w io.Writer, path, version string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	main := component{Type: "application", Name: "authvigil", Version: version, Hashes: []hash{{"SHA-256", hex.EncodeToString(sum[:])}}}
	main.PURL = "pkg:golang/" + info.Main.Path + "@" + version
	main.Ref = main.PURL
	for _, s := range info.Settings {
		if s.Key == "GOARCH" || s.Key == "GOOS" || s.Key == "CGO_ENABLED" || strings.HasPrefix(s.Key, "vcs.") {
			main.Properties = append(main.Properties, property{"go:" + s.Key, s.Value})
		}
	}
	std := library("std", strings.TrimPrefix(info.GoVersion, "go"), "")
	list, on := []component{std}, dependency{Ref: main.Ref, On: []string{std.Ref}}
	for _, m := range info.Deps {
		c := module(m)
		list, on.On = append(list, c), append(on.On, c.Ref)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(map[string]any{
		"$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
		"metadata":     map[string]any{"component": main},
		"components":   list,
		"dependencies": []dependency{on},
	})
}

// module is what was linked, which is the replacement where there is one.
func module(m *debug.Module) component {
	if m.Replace != nil {
		m = m.Replace
	}
	return library(m.Path, m.Version, m.Sum)
}

// library is a module with its checksum (h1, of go.sum), which is none of the hashes that CycloneDX knows.
func library(path, version, sum string) component {
	c := component{Type: "library", Name: path, Version: version, PURL: "pkg:golang/" + path + "@" + version}
	c.Ref = c.PURL
	if sum != "" {
		c.Properties = []property{{"go:sum", sum}}
	}
	return c
}
