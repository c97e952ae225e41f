package logline

import "bytes"

// logfmt reads key=value pairs, values in quotes where there are blanks in them.
type logfmt struct {
	clock  timeReader
	named  []named
	values values
}

func newLogfmt(o Options) (Reader, error) { return &logfmt{named: namedFields(o)}, nil }

func (f *logfmt) Read(line []byte, l *Line) error {
	f.values.reset()
	for line = blank(line); len(line) > 0; line = blank(line) {
		end := bytes.IndexAny(line, "= ")
		if end < 0 {
			break
		}
		key := line[:end]
		if line[end] == ' ' {
			line = line[end:]
			continue
		}
		line = line[end+1:]
		var value []byte
		if len(line) > 0 && line[0] == '"' {
			var ok bool
			if value, line, ok = quoted(line); !ok {
				return errLine
			}
		} else {
			end := bytes.IndexByte(line, ' ')
			if end < 0 {
				end = len(line)
			}
			value, line = line[:end], line[end:]
		}
		for i := range f.named {
			if f.named[i].name == string(key) {
				f.values.set(f.named[i], value)
				break
			}
		}
	}
	return f.values.into(l, &f.clock)
}
