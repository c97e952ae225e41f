package logline

import "bytes"

// w3c reads the extended log format of the W3C, in which IIS and CloudFront write: a comment names the fields. Times are UTC.
// The substatus of IIS says why: 401.1 logon failed, 401.2 by configuration, 401.3 access list, 401.4 filter, 401.5 program.
type w3c struct {
	clock  timeReader
	order  []field
	named  []named
	values values
	moment [40]byte
}

// iisOrder is what IIS writes where nobody changed it.
var iisOrder = []field{fieldDate, fieldTime, fieldNone, fieldNone, fieldPath, fieldNone, fieldNone, roleUser, roleAddress, fieldNone, fieldNone, fieldStatus, fieldSubstatus, fieldNone, fieldNone}

func newW3C(o Options) (Reader, error) {
	own := []named{{"date", fieldDate, 0}, {"time", fieldTime, 0}, {"sc-substatus", fieldSubstatus, 0}, {"x-forwarded-for", roleAddress, 0}, {"cs(X-Forwarded-For)", roleAddress, 0}}
	return &w3c{order: iisOrder, named: append(own, namedFields(o)...)}, nil
}

func (f *w3c) Read(line []byte, l *Line) error {
	if len(line) == 0 {
		return ErrNotRequest
	}
	if line[0] == '#' {
		if names, ok := bytes.CutPrefix(line, []byte("#Fields:")); ok {
			f.header(names)
		}
		return ErrNotRequest
	}
	f.values.reset()
	for i := 0; len(line) > 0; i++ {
		end := bytes.IndexAny(line, " \t")
		if end < 0 {
			end = len(line)
		}
		if i < len(f.order) && f.order[i] != fieldNone {
			f.values.set(named{is: f.order[i], rank: i}, line[:end])
		}
		line = line[min(end+1, len(line)):]
	}
	if date, time := f.values.text[fieldDate], f.values.text[fieldTime]; date != nil {
		if len(date)+1+len(time) > len(f.moment) {
			return errLine
		}
		n := copy(f.moment[:], date)
		f.moment[n] = ' '
		n += 1 + copy(f.moment[n+1:], time)
		f.values.text[fieldTime] = f.moment[:n]
	}
	sub := f.values.text[fieldSubstatus]
	if err := f.values.into(l, &f.clock); err != nil {
		return err
	}
	if l.Status == 401 && len(sub) == 1 && sub[0] >= '1' && sub[0] <= '9' {
		l.Reason = substatus[sub[0]-'0']
	}
	return nil
}

var substatus = [10][]byte{1: []byte("401.1"), 2: []byte("401.2"), 3: []byte("401.3"), 4: []byte("401.4"), 5: []byte("401.5"), 6: []byte("401.6"), 7: []byte("401.7"), 8: []byte("401.8"), 9: []byte("401.9")}

func (f *w3c) header(names []byte) {
	order := []field{}
	for name := range bytes.FieldsSeq(names) {
		if len(order) == 200 {
			return
		}
		is := fieldNone
		for _, n := range f.named {
			if n.name == string(name) {
				is = n.is
				break
			}
		}
		order = append(order, is)
	}
	f.order = order
}
