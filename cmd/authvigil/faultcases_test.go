package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestFaultCases_areTested: every test that a page of fault cases names is there, and the page on certificates has a row for
// each number of its lists.
func TestFaultCases_areTested(t *testing.T) {
	var sources strings.Builder
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		sources.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	pages, _ := filepath.Glob("../../docs/fault-cases*.md")
	if len(pages) == 0 {
		t.Fatal("no page of fault cases")
	}
	for _, path := range pages {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("`(Test[A-Za-z0-9_]+)").FindAllStringSubmatch(string(b), -1) {
			if !strings.Contains(sources.String(), "func "+m[1]+"(") {
				t.Errorf("%s names %s, and there is no such test", path, m[1])
			}
		}
		if !strings.HasSuffix(path, "certificates.md") {
			continue
		}
		for list, span := range map[string][2]int{"A": {1, 55}, "C": {23, 35}} {
			for i := span[0]; i <= span[1]; i++ {
				if row := fmt.Sprintf("\n| %s%d |", list, i); !strings.Contains(string(b), row) {
					t.Errorf("%s has no row %s%d", path, list, i)
				}
			}
		}
	}
}
