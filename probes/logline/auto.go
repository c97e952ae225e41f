package logline

import "errors"

// auto finds out what a line is: what the line before was is tried first.
type auto struct {
	formats []Reader
	present int
}

// autoOrder is the order in which formats are tried: those that are hardest to mistake first.
var autoOrder = []string{"json", "combined", "alb", "envoy", "haproxy", "csv", "w3c", "logfmt"}

func newAuto(o Options) (Reader, error) {
	f := &auto{}
	for _, kind := range autoOrder {
		reader, err := o.table[kind](o)
		if err != nil {
			return nil, err
		}
		f.formats = append(f.formats, reader)
	}
	// Envelopes come first: what is in one may look like a line by itself.
	inner := &auto{formats: f.formats}
	f.formats = append([]Reader{&enveloped{(&docker{}).open, inner}, &enveloped{openSyslog, inner}}, f.formats...)
	return f, nil
}

func (f *auto) Read(line []byte, l *Line) error {
	err := f.formats[f.present].Read(line, l)
	if err == nil || errors.Is(err, ErrNotRequest) {
		return err
	}
	for i, format := range f.formats {
		if i == f.present {
			continue
		}
		*l = Line{}
		if err := format.Read(line, l); err == nil || errors.Is(err, ErrNotRequest) {
			f.present = i
			return err
		}
	}
	return errLine
}
