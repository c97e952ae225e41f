package diagnose

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

var verbose = flag.Bool("eval.verbose", false, "list every miss, those on held-out providers included")

// A labelled is a record with what the source says was the cause.
type labelled struct {
	Record
	Cause      Cause   `json:"cause"`
	Acceptable []Cause `json:"acceptable"`
	line       []byte
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

// tuned says whether rules were written with a look at this provider's cases: a fixed part of 78 % by hash of the name.
func tuned(provider string) bool {
	sum := sha256.Sum256([]byte(provider))
	n := uint64(0)
	for _, b := range sum { // the hash as one number, modulo 100
		n = (n*256 + uint64(b)) % 100
	}
	return n < 78
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

// TestEval measures the verdicts on recorded failures: on providers whose cases were looked at when the rules were
// written, and on those that were not, which is the figure that counts.
func TestEval(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	var seen, unseen score
	for _, l := range readLabelled(t, "testdata/corpus.jsonl") {
		f := Explain(l.Case(now))[0]
		s, name := &unseen, "held out"
		if tuned(l.Provider) {
			s, name = &seen, "seen"
		}
		if !s.add(l, f) && (*verbose || name == "seen" && testing.Verbose()) {
			t.Logf("%s %s: want %s %v, got %s (%s): %q", name, l.ID, l.Cause, l.Acceptable, f.Cause, f.Sure, f.Because)
		}
	}
	t.Logf("providers looked at: %s", seen)
	t.Logf("providers held out:  %s", unseen)
	if seen.right*100 < seen.n*90 || unseen.right*100 < unseen.n*80 {
		t.Errorf("the verdicts got worse")
	}
}
