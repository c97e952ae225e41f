package probes

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/authvigil/authvigil/probes/logline"
)

const (
	headBytes    = 1 << 10          // of a file, by which it is known again
	lingers      = 90 * time.Second // how long a file that was renamed is read on: writers reopen late
	maxFollowed  = 64               // files that match a pattern
	maxRotations = 16               // files between the one that was read last and the present one
	maxHistory   = 64 << 20         // bytes of an existing log that a new probe learns from
)

// A mark is where reading stopped, and in which file.
type mark struct {
	Dev, Ino uint64
	Head     []byte    // hash of the beginning
	HeadLen  int64     // bytes that it is of
	Pos      int64     // of the line that comes next
	At       time.Time // when the file was last looked at
}

// A follower reads the files of one path through all that happens to them: renamed, copied and truncated, compressed, put
// into place by a symbolic link.
type follower struct {
	feed  *LogFeed
	path  string
	tails []*tail            // oldest first; the last is the present file
	seen  map[[2]uint64]bool // older files that were there when we last looked; nil: that is not known
	lost  string             // what could not be read any more, in words
}

// A tail is one file being read, whatever its name is by now.
type tail struct {
	*logSource
	file     *os.File
	gzip     *gzip.Reader
	mark     mark
	replaced time.Time // when another file took its place; zero: it has it
	grew     time.Time // when something was last read from it
}

// openLog opens a file without waiting for a writer, should it be a pipe.
func openLog(path string) (*os.File, fs.FileInfo, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		file.Close()
		return nil, nil, fmt.Errorf("%s is no regular file", path)
	}
	return file, info, nil
}

func identityOf(info fs.FileInfo) (dev, ino uint64) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Dev), st.Ino
	}
	return 0, 0
}

// head hashes the beginning of a file: whole lines, for the beginning of a line is like that of any other.
func head(r io.ReaderAt, n int64) ([]byte, int64) {
	b := make([]byte, min(n, headBytes))
	m, _ := r.ReadAt(b, 0)
	if m < headBytes {
		m = bytes.LastIndexByte(b[:m], '\n') + 1
	}
	return hashHead(b[:m]), int64(m)
}

func hashHead(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:8]
}

// knows says whether a file begins as the marked one did.
func (m mark) knows(r io.ReaderAt, size int64) bool {
	if size < m.HeadLen || m.HeadLen < 0 || m.HeadLen > headBytes {
		return false
	}
	b := make([]byte, m.HeadLen)
	n, _ := r.ReadAt(b, 0)
	return int64(n) == m.HeadLen && bytes.Equal(hashHead(b), m.Head)
}

// tail begins to read an open file at a place; a compressed one at a place of what it holds.
func (f *follower) tail(file *os.File, info fs.FileInfo, pos int64) (*tail, error) {
	t := &tail{file: file, grew: time.Now()}
	t.mark.Dev, t.mark.Ino = identityOf(info)
	var from io.Reader = file
	if strings.HasSuffix(file.Name(), ".gz") {
		z, err := gzip.NewReader(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file.Name(), err)
		}
		if _, err := io.CopyN(io.Discard, z, pos); err != nil {
			return nil, fmt.Errorf("%s: %w", file.Name(), err)
		}
		t.gzip, from = z, z
	} else if _, err := file.Seek(pos, io.SeekStart); err != nil {
		return nil, err
	}
	t.mark.Head, t.mark.HeadLen = head(file, info.Size())
	t.mark.At = t.grew
	var err error
	if t.logSource, err = f.feed.newSource(from, pos); err == nil && pos > 0 {
		t.prime()
	}
	return t, err
}

// prime shows the format what stands first in the file, where some say what their fields are.
func (t *tail) prime() {
	b := make([]byte, 4*headBytes)
	n, _ := t.file.ReadAt(b, 0)
	first := true
	for line := range bytes.Lines(b[:n]) {
		if !bytes.HasSuffix(line, []byte("\n")) || !first && line[0] != '#' {
			return
		}
		var l logline.Line
		_ = t.format.Read(bytes.TrimRight(line, "\r\n"), &l) // only what it remembers matters
		first = false
	}
}

// here is where reading of the tail would go on after a restart.
func (t *tail) here() mark {
	if t.mark.HeadLen < headBytes { // it may have grown since
		t.mark.Head, t.mark.HeadLen = head(t.file, headBytes)
	}
	m := t.mark
	m.Pos, m.At = t.at, time.Now()
	t.mark.At = m.At
	return m
}

// refresh looks at what became of the path and opens what is new. It is no error that the path is missing for a moment while
// older files are still at hand.
func (f *follower) refresh(now time.Time) error {
	f.retire(now)
	file, info, err := openLog(f.path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && len(f.tails) > 0 {
			last := f.tails[len(f.tails)-1]
			if last.replaced.IsZero() {
				last.replaced = now
			}
			return nil
		}
		return err
	}
	if len(f.tails) == 0 {
		return f.push(file, info, 0)
	}
	if err := f.untruncate(now); err != nil {
		file.Close()
		return err
	}
	defer f.look()
	last := f.tails[len(f.tails)-1]
	if dev, ino := identityOf(info); dev != last.mark.Dev || ino != last.mark.Ino {
		if last.replaced.IsZero() {
			last.replaced = now
		}
		f.between(now)
		return f.push(file, info, 0)
	}
	last.replaced = time.Time{}
	last.here()
	return file.Close()
}

// untruncate looks whether the present file was copied and truncated, and perhaps has grown again. What was not read yet is
// in the copy.
func (f *follower) untruncate(now time.Time) error {
	last := f.tails[len(f.tails)-1]
	info, err := last.file.Stat()
	if err != nil {
		return err
	}
	if last.gzip != nil || info.Size() >= last.next && last.mark.knows(last.file, info.Size()) && (last.mark.HeadLen > 0 || !f.copied()) {
		return nil
	}
	f.tails = f.tails[:len(f.tails)-1]
	if older := f.copyOf(last.gone()); older != nil {
		older.replaced = now
		f.tails = append(f.tails, older)
	}
	replaced := last.replaced
	if err := f.push(last.file, info, 0); err != nil {
		return err
	}
	f.tails[len(f.tails)-1].replaced = replaced
	return nil
}

// gone is the mark of a file that is no more: its beginning cannot be read again.
func (t *tail) gone() mark {
	m := t.mark
	m.Pos = t.at
	return m
}

func (f *follower) push(file *os.File, info fs.FileInfo, pos int64) error {
	t, err := f.tail(file, info, pos)
	if err != nil {
		file.Close()
		return err
	}
	f.tails = append(f.tails, t)
	return nil
}

// copied says whether there is an older file that was not there when the present one was empty.
func (f *follower) copied() bool {
	for _, name := range f.siblings() {
		info, err := os.Stat(name)
		if err != nil {
			continue
		}
		dev, ino := identityOf(info)
		if last := f.tails[len(f.tails)-1]; f.seen != nil && !f.seen[[2]uint64{dev, ino}] && (dev != last.mark.Dev || ino != last.mark.Ino) {
			return true
		}
	}
	return false
}

// look remembers which older files there are.
func (f *follower) look() {
	f.seen = map[[2]uint64]bool{}
	for _, name := range f.siblings() {
		if info, err := os.Stat(name); err == nil {
			dev, ino := identityOf(info)
			f.seen[[2]uint64{dev, ino}] = true
		}
	}
}

// between opens files that came and were rotated away since we last looked. Compressed ones are made of files that were
// there before.
func (f *follower) between(now time.Time) {
	for _, name := range f.siblings() {
		file, info, err := openLog(name)
		if err != nil {
			continue
		}
		dev, ino := identityOf(info)
		known := f.seen == nil || f.seen[[2]uint64{dev, ino}] || strings.HasSuffix(name, ".gz") ||
			slices.ContainsFunc(f.tails, func(t *tail) bool {
				return t.mark.Dev == dev && t.mark.Ino == ino || t.mark.HeadLen > 0 && t.mark.knows(file, info.Size())
			})
		if known || f.push(file, info, 0) != nil {
			file.Close()
			continue
		}
		f.tails[len(f.tails)-1].replaced = now
	}
}

// retire closes files that were replaced and have been silent for a while; a compressed one when it is at its end.
func (f *follower) retire(now time.Time) {
	for len(f.tails) > 0 {
		t := f.tails[0]
		silent := t.gzip != nil || now.Sub(t.replaced) >= lingers && now.Sub(t.grew) >= lingers
		if t.replaced.IsZero() || t.ready || !t.ended || !silent {
			return
		}
		if t.finish(f.feed); t.ready {
			t.add(f.feed)
		}
		t.file.Close()
		f.tails = f.tails[1:]
	}
}

// rotated finds the names that rotation gives to older files: access.log.1, access.log-20260102.gz, access.log.2026-01-02_03.
var rotated = regexp.MustCompile(`^[.-][0-9][0-9T._:-]*(\.gz)?$`)

// siblings are the older files of the path, the oldest first.
func (f *follower) siblings() []string {
	path := f.path
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	dir, base := filepath.Split(path)
	entries, err := os.ReadDir(cmp.Or(dir, "."))
	if err != nil {
		return nil
	}
	type old struct {
		name string
		at   time.Time
	}
	var list []old
	for _, e := range entries {
		rest, ok := strings.CutPrefix(e.Name(), base)
		if !ok || !rotated.MatchString(rest) || !e.Type().IsRegular() {
			continue
		}
		if info, err := e.Info(); err == nil {
			list = append(list, old{filepath.Join(dir, e.Name()), info.ModTime()})
		}
	}
	slices.SortStableFunc(list, func(a, b old) int { return a.at.Compare(b.at) })
	names := make([]string, 0, len(list))
	for _, o := range list[max(0, len(list)-64):] {
		names = append(names, o.name)
	}
	return names
}

// copyOf finds the copy of a marked file and opens it at the mark; nil when it is not there.
func (f *follower) copyOf(m mark) *tail {
	names := f.siblings()
	for i := len(names) - 1; i >= 0; i-- {
		if t := f.openOld(names[i], m); t != nil {
			if t.mark.Dev != m.Dev || t.mark.Ino != m.Ino {
				return t
			}
			t.file.Close()
		}
	}
	return nil
}

// openOld opens an older file at a mark, if it is the marked one.
func (f *follower) openOld(name string, m mark) *tail {
	file, info, err := openLog(name)
	if err != nil {
		return nil
	}
	matches := false
	if strings.HasSuffix(name, ".gz") {
		matches = gzipKnows(file, m)
	} else {
		matches = m.knows(file, info.Size()) && info.Size() >= m.Pos
	}
	if m.HeadLen == 0 { // it was empty: a copy of it can only be known by its age
		dev, ino := identityOf(info)
		matches = dev == m.Dev && ino == m.Ino
		if f.seen != nil {
			matches = matches || !f.seen[[2]uint64{dev, ino}]
		} else {
			matches = matches || info.ModTime().After(m.At)
		}
	}
	if matches {
		if t, err := f.tail(file, info, m.Pos); err == nil {
			return t
		}
	}
	file.Close()
	return nil
}

func gzipKnows(file *os.File, m mark) bool {
	if m.HeadLen < 0 || m.HeadLen > headBytes {
		return false
	}
	z, err := gzip.NewReader(io.NewSectionReader(file, 0, 1<<62)) // the place of the file stays
	if err != nil {
		return false
	}
	b := make([]byte, m.HeadLen)
	if _, err := io.ReadFull(z, b); err != nil {
		return false
	}
	return bytes.Equal(hashHead(b), m.Head)
}

// resume goes on where a mark says, through the files that came after the marked one: those of later marks, and those that are
// younger.
func (f *follower) resume(m mark, later []mark, now time.Time) error {
	file, info, err := openLog(f.path)
	if err == nil {
		if dev, ino := identityOf(info); dev == m.Dev && ino == m.Ino && info.Size() >= m.Pos && m.knows(file, info.Size()) {
			return f.push(file, info, m.Pos)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	names := f.siblings()
	found := -1
	for i, name := range names {
		if t := f.openOld(name, m); t != nil {
			t.replaced = now
			f.tails, found = append(f.tails, t), i
			break
		}
	}
	if found < 0 {
		f.lost = "the file that was read last is gone; lines between then and now may be missing"
	} else {
		between := append(slices.DeleteFunc(slices.Clone(names[:found]), func(name string) bool { return !isOneOf(name, m, later) }), names[found+1:]...)
		if len(between) > maxRotations {
			f.lost = fmt.Sprintf("%d files were rotated while nobody read; the oldest of them are left out", len(between))
			between = between[len(between)-maxRotations:]
		}
		for _, name := range between {
			if older, info, err := openLog(name); err == nil {
				if err := f.push(older, info, 0); err == nil {
					f.tails[len(f.tails)-1].replaced = now
				}
			}
		}
	}
	if file == nil {
		return nil
	}
	return f.push(file, info, 0)
}

// isOneOf says whether an older file is one of those marked, and another than the first: some programs that compress do not keep
// the time of what they compress, which then looks younger than it is.
func isOneOf(name string, first mark, marks []mark) bool {
	file, info, err := openLog(name)
	if err != nil || strings.HasSuffix(name, ".gz") {
		return false
	}
	defer file.Close()
	return !first.knows(file, info.Size()) && slices.ContainsFunc(marks, func(m mark) bool { return m.HeadLen > 0 && m.knows(file, info.Size()) })
}

// begin starts a log that was never read: one that appeared while we watched at its beginning, any other at its end, but
// for what the detector may learn from.
func (f *follower) begin(history int64, appeared bool) error {
	file, info, err := openLog(f.path)
	if err != nil {
		return err
	}
	if appeared {
		return f.push(file, info, 0)
	}
	from := max(0, info.Size()-history)
	if err := f.push(file, info, from); err != nil {
		return err
	}
	t := f.tails[0]
	t.quiet = info.Size()
	if from > 0 {
		t.line() // the rest of a line
		t.at = t.next
	}
	return nil
}

// behind is how many bytes are there and not yet read.
func (f *follower) behind() int64 {
	var sum int64
	for _, t := range f.tails {
		if t.gzip != nil {
			continue
		}
		if info, err := t.file.Stat(); err == nil {
			sum += max(0, info.Size()-t.next)
		}
	}
	return sum
}

func (f *follower) close() {
	for _, t := range f.tails {
		t.file.Close()
	}
	f.tails = nil
}
