package probes

import (
	"bytes"
	"errors"
	"io"

	"github.com/authvigil/authvigil/probes/logline"
)

const (
	maxLine    = 64 << 10  // a line that is longer is none of an access log
	readAtOnce = 256 << 10 // bytes
)

// A logSource is one stream of lines, in the order in which they were written.
type logSource struct {
	from   io.Reader
	format logline.Reader

	buf        []byte
	begin, end int   // of what was read and not yet taken
	looked     int   // up to where no end of a line was found
	at         int64 // place in the stream of the line that is taken next
	skipping   bool  // the rest of a line that is too long

	present logline.Line // parsed and not yet added
	ready   bool
	next    int64 // place after present
	quiet   int64 // lines that begin before this place were counted before

	ended bool // the last read said so: there is nothing now
}

func (f *LogFeed) newSource(r io.Reader, at int64) (*logSource, error) {
	format, err := f.newReader()
	return &logSource{from: r, format: format, buf: make([]byte, readAtOnce), at: at, next: at}, err
}

// line takes the next complete line, nil when there is none now. The line is good until the next call.
func (s *logSource) line() ([]byte, error) {
	for {
		if i := bytes.IndexByte(s.buf[s.looked:s.end], '\n'); i >= 0 {
			line := s.buf[s.begin : s.looked+i]
			s.next += int64(len(line)) + 1
			s.begin = s.looked + i + 1
			s.looked = s.begin
			if s.skipping || len(line) > maxLine {
				s.skipping = false
				return tooLong, nil
			}
			return line, nil
		}
		s.looked = s.end
		if s.end-s.begin > maxLine {
			s.skipping = true
			s.next += int64(s.end - s.begin)
			s.begin, s.end, s.looked = 0, 0, 0
		}
		if s.begin > 0 {
			copy(s.buf, s.buf[s.begin:s.end])
			s.end -= s.begin
			s.begin, s.looked = 0, s.end
		}
		n, err := s.from.Read(s.buf[s.end:])
		s.end += n
		if n > 0 {
			continue
		}
		s.ended = true
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return nil, err
	}
}

// tooLong stands for a line that is not kept.
var tooLong = []byte{0}

// rest takes what stands after the last end of a line: the stream will not go on.
func (s *logSource) rest() []byte {
	line := s.buf[s.begin:s.end]
	if s.skipping {
		line = tooLong
	}
	s.next += int64(s.end - s.begin)
	s.begin, s.end, s.looked, s.skipping = 0, 0, 0, false
	return line
}

// advance reads on until a line that is a request is at hand; false when there is none now.
func (s *logSource) advance(f *LogFeed) (bool, error) {
	s.ended = false
	for !s.ready {
		s.at = s.next
		line, err := s.line()
		if line == nil {
			return false, err
		}
		s.parse(f, line)
	}
	return true, nil
}

func (s *logSource) parse(f *LogFeed, line []byte) {
	line = bytes.TrimSuffix(line, []byte("\r"))
	s.present = logline.Line{}
	quiet := s.at < s.quiet
	switch err := s.format.Read(line, &s.present); {
	case err == nil:
		s.ready = true
	case quiet:
	case errors.Is(err, logline.ErrNotRequest) || len(line) == 0:
		f.Counts.Ignored++
	default:
		f.bad(line)
	}
}

// finish takes an unfinished last line.
func (s *logSource) finish(f *LogFeed) {
	if s.ready {
		return
	}
	s.at = s.next
	if line := s.rest(); len(line) > 0 {
		s.parse(f, line)
	}
}

// add gives the present line to the detector.
func (s *logSource) add(f *LogFeed) {
	f.add(&s.present, s.at < s.quiet)
	s.ready = false
	s.at = s.next
}

// pump reads sources to their present ends and adds their lines in the order of time, until enough says that it should
// stop. done: all that there is now has been read.
func (f *LogFeed) pump(sources []*logSource, enough func() bool) (done bool, err error) {
	if len(sources) == 1 {
		return f.pumpOne(sources[0], enough)
	}
	open := make([]*logSource, 0, len(sources))
	var errs []error
	for _, s := range sources {
		ok, err := s.advance(f)
		if ok {
			open = append(open, s)
		}
		errs = append(errs, err)
	}
	for n := 1; len(open) > 0; n++ {
		first := 0
		for i, s := range open[1:] {
			if s.present.At.Before(open[first].present.At) {
				first = i + 1
			}
		}
		s := open[first]
		s.add(f)
		ok, err := s.advance(f)
		if !ok {
			open = append(open[:first], open[first+1:]...)
			errs = append(errs, err)
		}
		if n%1024 == 0 && enough() {
			return false, errors.Join(errs...)
		}
	}
	return true, errors.Join(errs...)
}

func (f *LogFeed) pumpOne(s *logSource, enough func() bool) (bool, error) {
	for n := 1; ; n++ {
		ok, err := s.advance(f)
		if !ok {
			return true, err
		}
		s.add(f)
		if n%1024 == 0 && enough() {
			return false, nil
		}
	}
}

// Replay reads sources to their ends, in the order of the time of their lines. told is called with the alerts that begin and
// end, as they do.
func (f *LogFeed) Replay(from []io.Reader, told func()) error {
	sources := make([]*logSource, len(from))
	for i, r := range from {
		var err error
		if sources[i], err = f.newSource(r, 0); err != nil {
			return err
		}
	}
	for {
		done, err := f.pump(sources, func() bool { return f.detector.Changed() })
		told()
		if err != nil {
			return err
		}
		if done {
			break
		}
	}
	for _, s := range sources {
		if s.finish(f); s.ready {
			s.add(f)
		}
	}
	told()
	return nil
}
