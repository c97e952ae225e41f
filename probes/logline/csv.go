package logline

import "bytes"

// csv reads the columns ts,status,endpoint,client, or those that a header names.
type csv struct {
	clock   timeReader
	columns []field
	named   []named
	values  values
}

var csvColumns = []field{fieldTime, fieldStatus, fieldPath, roleClientID}

func newCSV(o Options) (Reader, error) {
	return &csv{columns: csvColumns, named: append([]named{{"client", roleClientID, -1}}, namedFields(o)...)}, nil
}

func (f *csv) Read(line []byte, l *Line) error {
	line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
	if len(line) == 0 {
		return ErrNotRequest
	}
	if line[0] < '0' || line[0] > '9' {
		if line[0] != '"' {
			return f.header(line)
		}
	}
	f.values.reset()
	for i := 0; ; i++ {
		text, rest, more := cell(line)
		if i < len(f.columns) && f.columns[i] != fieldNone {
			f.values.set(named{is: f.columns[i]}, text)
		}
		if !more {
			break
		}
		line = rest
	}
	if err := f.values.into(l, &f.clock); err != nil {
		return err
	}
	l.Whole = true
	return nil
}

// cell reads one column.
func cell(b []byte) (text, rest []byte, more bool) {
	if len(b) > 0 && b[0] == '"' {
		if text, rest, ok := quoted(b); ok {
			return text, bytes.TrimPrefix(rest, []byte(",")), len(rest) > 0
		}
	}
	return bytes.Cut(b, []byte(","))
}

// header takes the order of the columns from the first line; without time, status and endpoint it is none.
func (f *csv) header(line []byte) error {
	var columns []field
	var has [fields]bool
	for more := true; more; {
		var text []byte
		text, line, more = cell(line)
		is := fieldNone
		for _, n := range f.named {
			if string(bytes.TrimSpace(text)) == n.name {
				is = n.is
				break
			}
		}
		columns = append(columns, is)
		if is >= 0 {
			has[is] = true
		}
		if len(columns) > 200 {
			return errLine
		}
	}
	if !has[fieldTime] || !has[fieldStatus] || !has[fieldPath] {
		return errLine
	}
	f.columns = columns
	return ErrNotRequest
}
