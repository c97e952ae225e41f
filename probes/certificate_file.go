package probes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/authvigil/authvigil/probes/certfile"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

const mostFiles = 1000 // of one probe

var (
	certLoadFailures = &evidence.Metric{Name: "certificate_load_failures_total", Help: "Files that could not be read as certificates, by reason.", Counter: true, Labels: []string{"probe", "reason"}}
	certFiles        = &evidence.Metric{Name: "certificate_files", Help: "Files with certificates that were found and read.", Labels: []string{"probe"}}
)

// suffixes are those of files that a directory is searched for.
var suffixes = []string{".pem", ".crt", ".cer", ".cert", ".der", ".p7b", ".p12", ".pfx", ".jks", ".jceks", ".keystore", ".truststore", ".kubeconfig"}

// A keptFile is what a file held when it was last read: it is read again when it has changed.
type keptFile struct {
	mark  fileMark
	form  string
	list  []certfile.Entry
	err   *certfile.Error
	bad   int    // failed readings in a row since it was last good
	leaf  string // fingerprint of its first certificate, to see a rotation
	since time.Time
}

// A fileMark changes when a file does: by size, time, and the file behind the name, so that a swapped link is seen.
type fileMark struct {
	size       int64
	modified   time.Time
	inode, dev uint64
}

// onDisk is what the files of a probe hold.
type onDisk struct {
	chains   []judged
	readings []evidence.Reading
	fault    error
	rotated  int
}

func checkPattern(pattern string) error {
	if pattern == "" {
		return errors.New("an empty name")
	}
	if _, err := filepath.Match(pattern, ""); err != nil {
		return fmt.Errorf("%q is no valid pattern", pattern)
	}
	return nil
}

// lookAtFiles reads the files that have changed and judges all. A file that does not load makes a fault, and hides none of
// the others.
func (p *certificateProbe) lookAtFiles(ctx context.Context, clock trueTime) (d onDisk) {
	if len(p.Files) == 0 {
		return d
	}
	paths, err := p.paths()
	if err != nil {
		d.fault = storeFault("not_found", err)
	}
	passphrase, err := p.passphrase(ctx)
	if err != nil {
		d.fault = err
	}
	good := 0
	for _, path := range paths {
		if ctx.Err() != nil {
			d.fault = wire.Classify(ctx, evidence.StageConfig, ctx.Err())
			break
		}
		f := p.load(path, passphrase)
		if f.err != nil {
			code := f.err.Code
			d.readings = append(d.readings, evidence.Reading{Metric: certLoadFailures, Labels: []string{code}, Value: 1})
			if d.fault == nil {
				d.fault = storeFault(code, fmt.Errorf("%s %w", path, f.err))
			}
		} else {
			good++
		}
		if len(f.list) == 0 {
			continue
		}
		sum := evidence.Clean(wire.DescribeCertificate(f.list[0].Certificate, true).Fingerprint, 64)
		if f.leaf != "" && f.leaf != sum {
			d.rotated++
		}
		f.leaf = sum
		d.chains = append(d.chains, p.judgeStored(path, f, clock))
	}
	for path := range p.files {
		if !slices.Contains(paths, path) {
			delete(p.files, path)
		}
	}
	d.readings = append(d.readings, evidence.Reading{Metric: certFiles, Value: float64(good)})
	return d
}

func storeFault(code string, err error) error {
	return &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomSource, Code: code, Err: err}
}

func (p *certificateProbe) passphrase(ctx context.Context) (string, error) {
	if p.Passphrase.IsZero() {
		return "", nil
	}
	v, err := p.Passphrase.Reveal(ctx)
	if err != nil {
		return "", &evidence.Fault{Stage: evidence.StageConfig, Symptom: evidence.SymptomSecret, Code: "passphrase", Err: fmt.Errorf("passphrase: %w", err)}
	}
	return v.Expose(), nil
}

// paths gives the files that the settings name, in order, each once. A name without a pattern must be there.
func (p *certificateProbe) paths() (list []string, err error) {
	add := func(path string) {
		if !slices.Contains(list, path) && len(list) < mostFiles {
			list = append(list, path)
		}
	}
	for _, pattern := range p.Files {
		if info, statErr := os.Stat(pattern); statErr == nil && info.IsDir() {
			entries, readErr := os.ReadDir(pattern)
			if readErr != nil {
				err = fmt.Errorf("%s %w", pattern, certfile.AsError(readErr))
			}
			for _, e := range entries {
				name := e.Name()
				if !strings.HasPrefix(name, ".") && slices.Contains(suffixes, strings.ToLower(filepath.Ext(name))) {
					add(filepath.Join(pattern, name))
				}
			}
			continue
		}
		found, _ := filepath.Glob(pattern) // checked when the probe was made
		slices.Sort(found)
		if len(found) == 0 && !strings.ContainsAny(pattern, "*?[") {
			add(pattern) // to be named when it is read
		}
		for _, path := range found {
			if info, err := os.Stat(path); err == nil && !info.IsDir() {
				add(path)
			}
		}
	}
	if len(list) == 0 && err == nil {
		err = fmt.Errorf("%s matches no file", strings.Join(p.Files, ", "))
	}
	return list, err
}

// load reads a file when it has changed. One that was good and cannot be read is taken for one that is being written: the
// last good content stands in for one run.
func (p *certificateProbe) load(path, passphrase string) *keptFile {
	before := p.files[path]
	mark, err := markOf(path)
	if before != nil && err == nil && before.mark == mark && before.err == nil && before.bad == 0 {
		return before
	}
	now := &keptFile{mark: mark, since: time.Now()}
	if before != nil {
		now.leaf = before.leaf
	}
	if err == nil {
		var b []byte
		if b, err = certfile.Read(path); err == nil {
			now.form, now.list, err = certfile.Parse(b, passphrase)
		}
	}
	if err != nil {
		now.err = certfile.AsError(err)
		if before != nil && before.err == nil && before.bad == 0 && halfWritten(now.err) {
			now.form, now.list, now.err, now.bad = before.form, before.list, nil, 1
		}
	}
	p.files[path] = now
	return now
}

func halfWritten(err *certfile.Error) bool {
	switch err.Code {
	case "bad_pem", "bad_der", "bad_pkcs12", "bad_jks", "bad_kubeconfig", "no_certificate", "not_found":
		return true
	}
	return false
}

func markOf(path string) (m fileMark, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return m, err
	}
	m = fileMark{size: info.Size(), modified: info.ModTime()}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		m.inode, m.dev = s.Ino, uint64(s.Dev) //nolint:unconvert,gosec // a signed number on some systems
	}
	return m, nil
}

// judgeStored judges the certificates of a file. Leaves are judged as served ones are; of authorities only that one at
// least is alive, because a bundle of roots always holds some that are old.
func (p *certificateProbe) judgeStored(path string, f *keptFile, clock trueTime) judged {
	j := judged{where: path, stored: true, chain: evidence.Chain{Address: path, Protocol: f.form}}
	worst := evidence.Facet{Name: "time", State: evidence.OK}
	authorities, alive := 0, 0
	for i, s := range f.list {
		j.certs = append(j.certs, s.Certificate)
		d := wire.DescribeCertificate(s.Certificate, !s.Certificate.IsCA)
		j.chain.Certificates = append(j.chain.Certificates, d)
		if j.chain.PresentedNotAfter.IsZero() || s.Certificate.NotAfter.Before(j.chain.PresentedNotAfter) {
			j.chain.PresentedNotAfter = s.Certificate.NotAfter
		}
		t := p.judgeTime(s.Certificate, clock)
		if s.Certificate.IsCA {
			authorities++
			if t.Code != "expired" && t.Code != "not_yet_valid" {
				alive++
			}
			if t.State == evidence.Fail {
				t.State = evidence.Warn
			}
		}
		if rank(t.State) > rank(worst.State) {
			worst = t
			worst.Detail = fmt.Sprintf("%s: %s", nameInFile(path, i, s.Name), t.Detail)
		}
	}
	if authorities == len(f.list) && alive == 0 {
		worst.State = evidence.Fail
	}
	if f.bad > 0 {
		j.chain.Facets = append(j.chain.Facets, evidence.Facet{Name: "stored", State: evidence.Warn, Code: "being_written", Detail: path + " cannot be read at present; what it held before stands in for it"})
	}
	j.chain.Facets = append([]evidence.Facet{worst}, j.chain.Facets...)
	if p.Address == "" && len(f.list) > 0 && !f.list[0].Certificate.IsCA {
		j.chain.Facets = append(j.chain.Facets, p.judgeStoredChain(&j, clock)...)
	}
	return j
}

func nameInFile(path string, i int, name string) string {
	if name == "" {
		return fmt.Sprintf("%s#%d", path, i)
	}
	return fmt.Sprintf("%s#%d (%s)", path, i, name)
}

// judgeStoredChain judges what a server would present from the file: its name and, where authorities are named, whether it
// leads to them.
func (p *certificateProbe) judgeStoredChain(j *judged, clock trueTime) (facets []evidence.Facet) {
	if p.ServerName != "" {
		facets = append(facets, wire.JudgeName(j.certs[0], p.ServerName))
	}
	if p.CAFile != "" {
		chains, err := wire.BuildChains(j.certs, nil, p.roots, clock.at())
		trust := wire.JudgeTrust(j.certs, err)
		j.chain.VerifiedNotAfter = wire.BestEnd(chains)
		facets = append(facets, trust)
	}
	return append(facets, judgeStrength(&shown{certs: j.certs}))
}
