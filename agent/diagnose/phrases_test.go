package diagnose

import (
	"bufio"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/authvigil/authvigil/probes/evidence"
)

// TestPhrases asks for the sense of the ways in which servers, libraries and client stacks put it: as a sentence, in JSON, and in an OAuth error.
func TestPhrases(t *testing.T) {
	for _, name := range []string{"phrases", "stacks"} {
		t.Run(name, func(t *testing.T) { askPhrases(t, "testdata/"+name+".txt") })
	}
}

func askPhrases(t *testing.T, path string) {
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var want []Cause
	var status int
	var scheme string
	stage := evidence.StageAPI
	n, wrong := 0, 0
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if head, ok := strings.CutPrefix(line, "= "); ok {
			words := strings.Fields(head)
			want = nil
			for c := range strings.SplitSeq(words[0], ",") {
				want = append(want, Cause(c))
			}
			status, err = strconv.Atoi(words[1])
			if err != nil {
				t.Fatal(err)
			}
			scheme, stage = words[2], evidence.StageAPI
			if len(words) > 3 {
				stage = evidence.StageToken
			}
			continue
		}
		bodies := []string{line, `{"error":{"message":` + strconv.Quote(line) + `}}`, `{"success":false,"error_description":` + strconv.Quote(line) + `}`}
		if status == 0 {
			bodies = bodies[:1]
		}
		for _, body := range bodies {
			x := evidence.Exchange{Stage: stage, Scheme: scheme, Status: status, Body: body}
			if status == 0 {
				x.Body, x.Fault = "", &evidence.Fault{Stage: stage, Symptom: evidence.SymptomUnknown, Err: errors.New(line)}
			}
			f := Explain(Case{Now: noon, Sighting: Sighting{Scheme: scheme, Report: evidence.Report{Exchanges: []evidence.Exchange{x}}, Fault: &evidence.Fault{Stage: stage, Symptom: evidence.SymptomUnknown, Err: errors.New("x")}}})[0]
			n++
			if !slices.Contains(want, f.Cause) {
				wrong++
				t.Logf("%s: want %s, got %s (%s)", body, want, f.Cause, f.Sure)
				if f.Sure == Certain {
					t.Errorf("%s: wrong and certain: %s", body, f.Cause)
				}
			}
		}
	}
	t.Logf("%d of %d", n-wrong, n)
	if wrong*100 > n*3 {
		t.Errorf("%d of %d phrases are misunderstood", wrong, n)
	}
}
