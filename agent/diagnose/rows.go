package diagnose

// A row is one way to recognise a cause: what a clause of the answer speaks about, or what the facts are. The rows of all
// families are tried, and the weightiest wins; what a row needs is in the row, so that it can be read by itself.
type row struct {
	cause  Cause
	weight int // 90 and more: nothing else says this; 70: the usual meaning; 50: a guess from the kind of request; 30: the last resort

	words         []string // in normal form, of which the clause holds one; nil: whatever it holds
	all, any, not set      // concepts that one clause has, of which it has one, of which it has none
	when          func(*facts) bool
}

// matches says whether the row holds, and which clause says so.
func (r *row) matches(f *facts) (clause, bool) {
	if r.when != nil && !r.when(f) {
		return clause{}, false
	}
	if r.all|r.any == 0 && r.words == nil {
		return clause{}, true
	}
	return f.clauseWith(r)
}

// families are the rows in their order; it does not matter for the verdict.
var families = [][]row{protocolRows, tokenRows, identityRows, signedRows, tlsRows, networkRows, serverRows, clockRows, worldRows, comparisonRows}
