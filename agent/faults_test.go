package agent

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	testFunction = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w*)\(`)
	testName     = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)\\w*)(/[^`]+)?`")
)

// testTexts gives the texts of the files that hold a test, by its name.
func testTexts(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range testFunction.FindAllStringSubmatch(string(b), -1) {
			texts[m[1]] += string(b)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

// TestFaultCasesPages: every test that a page of fault cases names is there, and the page on certificates has a row for each
// number of its lists.
func TestFaultCasesPages(t *testing.T) {
	texts := testTexts(t)
	pages, _ := filepath.Glob("../docs/fault-cases*.md")
	if len(pages) == 0 {
		t.Fatal("no page of fault cases")
	}
	for _, path := range pages {
		page, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range testName.FindAllStringSubmatch(string(page), -1) {
			if _, ok := texts[m[1]]; !ok {
				t.Errorf("%s: there is no test %s", path, m[1])
			}
		}
		if !strings.HasSuffix(path, "certificates.md") {
			continue
		}
		for list, span := range map[string][2]int{"A": {1, 55}, "C": {23, 35}} {
			for n := span[0]; n <= span[1]; n++ {
				if !strings.Contains(string(page), fmt.Sprintf("\n| %s%d |", list, n)) {
					t.Errorf("%s has no row %s%d", path, list, n)
				}
			}
		}
	}
}

// TestFaultsPage: docs/faults.md has every row of the fault list, each with tests that exist or a reason why there is none.
func TestFaultsPage(t *testing.T) {
	texts := testTexts(t)
	page, err := os.ReadFile("../docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range testName.FindAllStringSubmatch(string(page), -1) {
		part := strings.TrimPrefix(m[2], "/")
		switch text, ok := texts[m[1]]; {
		case !ok:
			t.Errorf("there is no test %s", m[1])
		case part != "" && !strings.Contains(text, fmt.Sprintf("t.Run(%q", part)):
			t.Errorf("%s has no part %q", m[1], part)
		}
	}
	row, passed := 0, 0
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		var n int
		if _, err := fmt.Sscanf(cells[0], "%d", &n); err != nil || !strings.HasPrefix(line, "| ") {
			continue
		}
		if row++; n != row {
			t.Fatalf("row %d stands where %d should", n, row)
		}
		if len(cells) != 5 {
			t.Fatalf("row %d has %d cells", n, len(cells))
		}
		result := strings.TrimSpace(cells[4])
		why, without := strings.CutPrefix(result, "differs: ")
		if !without {
			why, without = strings.CutPrefix(result, "not here: ")
		}
		switch {
		case result == "passes" && testName.MatchString(cells[3]):
			passed++
		case without && len(why) > 20:
		default:
			t.Errorf("row %d: result %q with tests %q", n, result, cells[3])
		}
	}
	if row < 116 || passed < 100 {
		t.Errorf("%d rows, %d pass; want 116 and 100", row, passed)
	}
	t.Logf("%d rows, %d pass", row, passed)
}
