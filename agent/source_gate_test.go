package agent

import (
	"testing"

	"github.com/authvigil/authvigil/probes/evidence"
)

// TestOutcomeFor_anUnreadableLogClosesNoGate: to look again whether a file is there costs nobody anything, and another probe
// of the same Prometheus server must not be kept from asking because the expression of this one is wrong.
func TestOutcomeFor_anUnreadableLogClosesNoGate(t *testing.T) {
	for symptom, ignored := range map[evidence.Symptom]bool{evidence.SymptomSource: true, evidence.SymptomLocalResources: true, evidence.SymptomTimeout: false} {
		o := &Observation{Fault: &evidence.Fault{Stage: evidence.StageLog, Symptom: symptom}}
		if got := outcomeFor(o).Ignore; got != ignored {
			t.Errorf("%s: ignored %v, want %v", symptom, got, ignored)
		}
	}
}
