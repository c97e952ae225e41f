package diagnose

import (
	"cmp"
	"slices"
)

// A row is one way to recognise a cause: what a clause of the answer speaks about, or what the facts are. The rows of all
// families are tried, and the weightiest wins; what a row needs is in the row, so that it can be read by itself.
type row struct {
	cause  Cause
	weight int // 90 and more: nothing else says this; 70: the usual meaning; 50: a guess from the kind of request; 30: the last resort

	words         []string // in normal form, of which the clause holds one; nil: whatever it holds
	prose         bool     // a clause that is an error code does not count
	all, any, not set      // concepts that one clause has, of which it has one, of which it has none
	before        []string // in normal form, of which the history holds one
	when          func(*facts) bool

	slot int // of the cause, in the list of candidates; set once
}

// matches says whether the row holds, and which clause says so. Sets are compared before facts are looked at, which costs more.
func (r *row) matches(f *facts) (cl clause, ok bool) {
	if r.before != nil && (f.historyRaw == "" || !holdsOne(f.historyRaw, r.before)) {
		return cl, false
	}
	if r.all|r.any != 0 || r.words != nil {
		if cl, ok = f.clauseWith(r); !ok {
			return cl, false
		}
	}
	return cl, r.when == nil || r.when(f)
}

// families are the rows by family; their order does not matter for the verdict.
var families = [][]row{protocolRows, tokenRows, identityRows, signedRows, tlsRows, networkRows, serverRows, clockRows, worldRows, comparisonRows, credentialRows, issuerRows, historyRows}

// slots number the causes that rows name.
var slots = map[Cause]int{}

// ordered are the rows of all families, weightiest first.
var ordered = func() (list []*row) {
	for _, family := range families {
		for i := range family {
			list = append(list, &family[i])
		}
	}
	for _, r := range list {
		slot, known := slots[r.cause]
		if !known {
			slot = len(slots)
			slots[r.cause] = slot
		}
		r.slot = slot
	}
	slices.SortStableFunc(list, func(a, b *row) int { return cmp.Compare(b.weight, a.weight) })
	return list
}()
