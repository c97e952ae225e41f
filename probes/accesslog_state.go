package probes

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/authvigil/authvigil/agent/spike"
	"github.com/authvigil/authvigil/probes/identity"
)

// What outlives a restart: after each run the marks up to which lines were counted, and every few minutes, and at the end,
// what the detector learnt with the marks up to which it did. After a crash the lines between the two go to the detector
// again, but are not counted again.

// logMarks is where reading stopped, by path; of each path the oldest file first.
type logMarks map[string][]mark

// learnt is a state of the detector with the marks up to which it has seen lines.
type learnt struct {
	Marks    logMarks
	Detector []byte
	Newest   time.Time
}

func (p *accesslogProbe) keys() (marks, state string) {
	return "accesslog/" + p.name + "/marks", "accesslog/" + p.name + "/learnt"
}

// save writes down the marks, and what was learnt when that is due.
func (p *accesslogProbe) save(now time.Time, all bool) {
	if p.store == nil {
		p.saved = now
		return
	}
	marksKey, stateKey := p.keys()
	var errs []error
	marks := p.marks()
	if all || now.Sub(p.saved) >= stateEvery {
		state, err := p.feed.detector.Save()
		if err == nil {
			err = p.put(stateKey, learnt{Marks: marks, Detector: state, Newest: p.newest})
		}
		errs = append(errs, err)
		p.saved = now
	}
	errs = append(errs, p.put(marksKey, marks))
	err := errors.Join(errs...)
	if err != nil && !p.failing {
		p.log.Warn("state of the log probe not saved: after a restart lines may be missing or count twice", "error", err)
	}
	p.failing = err != nil
}

func (p *accesslogProbe) put(key string, v any) error {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(v); err != nil {
		return err
	}
	return p.store.Save(key, b.Bytes())
}

func (p *accesslogProbe) get(key string, v any) (bool, error) {
	b, err := p.store.Load(key)
	if err != nil && !errors.Is(err, identity.ErrOlder) || len(b) == 0 {
		return false, err
	}
	return true, gob.NewDecoder(bytes.NewReader(b)).Decode(v)
}

func (p *accesslogProbe) marks() logMarks {
	m := logMarks{}
	for path, f := range p.files {
		for _, t := range f.tails {
			m[path] = append(m[path], t.here())
		}
	}
	return m
}

// restore takes over what a process before this one knew.
func (p *accesslogProbe) restore() {
	if p.store == nil {
		return
	}
	marksKey, stateKey := p.keys()
	var counted logMarks
	var state learnt
	hasMarks, err1 := p.get(marksKey, &counted)
	hasState, err2 := p.get(stateKey, &state)
	if err := errors.Join(err1, err2); err != nil {
		p.log.Warn("state of the log probe cannot be read; it begins anew", "error", err)
		return
	}
	p.picked = map[string]pickedUp{}
	if hasMarks {
		for path, marks := range counted {
			p.picked[path] = pickedUp{counted: marks, learnt: marks}
		}
		p.saved = time.Now()
	}
	if !hasState {
		return
	}
	d, err := spike.Restore(p.feed.detector.Policy(), state.Detector)
	if err != nil {
		p.log.Warn("what was usual has to be learnt again", "error", err)
		return
	}
	p.feed.detector, p.feed.newest = d, state.Newest
	for path, marks := range state.Marks {
		up := p.picked[path]
		up.learnt = marks
		if up.counted == nil {
			up.counted = marks
		}
		p.picked[path] = up
	}
}

// pickedUp is where reading of a path goes on: from where the detector has to see lines again, and from where they count.
type pickedUp struct{ learnt, counted []mark }

// pickUp goes on where a process before this one stopped.
func (f *follower) pickUp(up pickedUp, now time.Time) error {
	if len(up.learnt) == 0 {
		return fmt.Errorf("%s: no mark", f.path)
	}
	first := up.learnt[0]
	for _, m := range up.counted { // it was empty when the detector was saved: another file may have its inode by now
		if first.HeadLen == 0 && m.Dev == first.Dev && m.Ino == first.Ino {
			first.Head, first.HeadLen = m.Head, m.HeadLen
		}
	}
	if err := f.resume(first, slices.Concat(up.learnt[1:], up.counted), now); err != nil {
		return err
	}
	// Of the files that are read again, those before the first counted one were counted to their ends.
	last := up.counted[len(up.counted)-1]
	for i := len(f.tails) - 1; i >= 0; i-- {
		t := f.tails[i]
		if t.is(last) {
			t.quiet = last.Pos
			for _, older := range f.tails[:i] {
				older.quiet = 1 << 62
			}
			break
		}
	}
	for _, m := range up.counted[:len(up.counted)-1] {
		for _, t := range f.tails {
			if t.is(m) {
				t.quiet = m.Pos
			}
		}
	}
	return nil
}

// is says whether the tail is of the marked file.
func (t *tail) is(m mark) bool {
	if t.gzip != nil {
		return gzipKnows(t.file, m)
	}
	info, err := t.file.Stat()
	return err == nil && (m.HeadLen > 0 || t.mark.Ino == m.Ino) && m.knows(t.file, info.Size())
}
