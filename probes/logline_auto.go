package probes

import "errors"

// auto finds out what a line is: what the line before was is tried first.
type auto struct {
	formats []logFormat
	present int
}

// autoOrder is the order in which formats are tried: those that are hardest to mistake first.
var autoOrder = []string{"json", "combined", "alb", "envoy", "haproxy", "csv", "w3c", "logfmt"}

func newAuto(o logOptions) (logFormat, error) {
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
	f.formats = append([]logFormat{&enveloped{(&docker{}).open, inner}, &enveloped{openSyslog, inner}}, f.formats...)
	return f, nil
}

func (f *auto) read(line []byte, l *logLine) error {
	err := f.formats[f.present].read(line, l)
	if err == nil || errors.Is(err, errNotRequest) {
		return err
	}
	for i, format := range f.formats {
		if i == f.present {
			continue
		}
		*l = logLine{}
		if err := format.read(line, l); err == nil || errors.Is(err, errNotRequest) {
			f.present = i
			return err
		}
	}
	return errLine
}
