package diagnose

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"
)

// A labelled is a record with what the source says was the cause.
type labelled struct {
	Record
	Set        string  `json:"set"`
	Cause      Cause   `json:"cause"`
	Acceptable []Cause `json:"acceptable"`
}

func readLabelled(tb testing.TB, path string) (list []labelled) {
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var l labelled
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			tb.Fatal(err)
		}
		if l.Record, err = ReadRecord(lines.Bytes()); err != nil {
			tb.Fatal(err)
		}
		list = append(list, l)
	}
	return list
}

type score struct{ n, right, certain, wrongCertain int }

func (s *score) add(l labelled, f Finding) bool {
	right := f.Cause == l.Cause || slices.Contains(l.Acceptable, f.Cause)
	s.n++
	if right {
		s.right++
	}
	if f.Sure == Certain {
		s.certain++
		if !right {
			s.wrongCertain++
		}
	}
	return right
}

func (s score) String() string {
	return fmt.Sprintf("%d of %d right (%.1f %%), %d certain, %d of them wrong", s.right, s.n, 100*float64(s.right)/float64(max(s.n, 1)), s.certain, s.wrongCertain)
}

// TestEval measures the verdicts on recorded failures, and prints them by cause and by provider. Where they come from, and what
// each set gave before anybody looked at it, stands in testdata/README.md: those are the figures to expect of providers that are in no set.
func TestEval(t *testing.T) {
	for _, c := range []struct {
		file  string
		floor int // percent right
	}{{"corpus", 97}, {"further", 97}} {
		t.Run(c.file, func(t *testing.T) { evaluate(t, readLabelled(t, "testdata/"+c.file+".jsonl"), c.floor) })
	}
}

func evaluate(t *testing.T, list []labelled, floor int) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	var all score
	perCause, perProvider, perSet := map[string]*score{}, map[string]*score{}, map[string]*score{}
	count := func(m map[string]*score, name string, l labelled, f Finding) {
		if m[name] == nil {
			m[name] = &score{}
		}
		m[name].add(l, f)
	}
	for _, l := range list {
		f := Explain(l.Case(now))[0]
		count(perCause, string(l.Cause), l, f)
		count(perProvider, l.Provider, l, f)
		count(perSet, l.Set, l, f)
		if !all.add(l, f) {
			t.Logf("%s: want %s %v, got %s (%s): %q", l.ID, l.Cause, l.Acceptable, f.Cause, f.Sure, f.Because)
		}
	}
	report := func(title string, m map[string]*score, show func(*score) bool) {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			if show(m[name]) {
				t.Logf("%s %-32s %s", title, name, m[name])
			}
		}
	}
	report("cause", perCause, func(*score) bool { return true })
	report("provider", perProvider, func(s *score) bool { return s.right < s.n })
	report("set", perSet, func(*score) bool { return true })
	whole := 0
	for _, s := range perProvider {
		if s.right == s.n {
			whole++
		}
	}
	t.Logf("%d of %d providers without an error; all: %s", whole, len(perProvider), all)
	if all.right*100 < all.n*floor || all.wrongCertain > 0 {
		t.Errorf("the verdicts got worse: %s", all)
	}
}

// TestEval_leaveOut takes from each failure what helps and asks what remains: the verdict may become less sure or less right, but
// never wrong and certain.
func TestEval_leaveOut(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	without := map[string]func(*Case){
		"history":  func(c *Case) { c.Sighting.History = nil },
		"claims":   func(c *Case) { c.Sighting.Report.Token = nil },
		"clock":    func(c *Case) { c.World.Clock = nil },
		"scheme":   func(c *Case) { c.Sighting.Scheme, c.Sighting.Report.Exchanges[0].Scheme = "", "" },
		"provider": func(c *Case) { c.Sighting.Provider = "" },
		"headers":  func(c *Case) { c.Sighting.Report.Exchanges[0].Header = nil },
		"body":     func(c *Case) { c.Sighting.Report.Exchanges[0].Body = "" },
	}
	list := append(readLabelled(t, "testdata/corpus.jsonl"), readLabelled(t, "testdata/further.jsonl")...)
	for _, name := range slices.Sorted(maps.Keys(without)) {
		var all score
		for _, l := range list {
			c := l.Case(now)
			without[name](&c)
			f := Explain(c)[0]
			if !all.add(l, f) && f.Sure == Certain {
				t.Logf("without %s: %s: want %s %v, got %s: %q", name, l.ID, l.Cause, l.Acceptable, f.Cause, f.Because)
			}
		}
		t.Logf("without %-8s %s", name, all)
		if all.wrongCertain*100 > all.certain {
			t.Errorf("without %s: wrong and certain too often: %s", name, all)
		}
	}
}
