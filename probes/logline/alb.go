package logline

import "bytes"

// alb reads the access logs of AWS Application Load Balancers. The balancer's own status and that of the target stand side by
// side: a 401 without one of the target is an answer of the balancer, by its OIDC or JWT action.
type alb struct{ clock timeReader }

// Places of the fields, from 0.
const (
	albTime          = 1
	albClient        = 3
	albStatus        = 8
	albTarget        = 9
	albRequest       = 12
	albError         = 24
	albFields        = albRequest + 1
	albErrorAtLatest = albError
)

func newALB(Options) (Reader, error) { return &alb{}, nil }

func (f *alb) Read(line []byte, l *Line) error {
	var text [albErrorAtLatest + 1][]byte
	n := 0
	for ; n < len(text) && len(line) > 0; n++ {
		if line[0] == '"' {
			var ok bool
			if text[n], line, ok = quoted(line); !ok {
				return errLine
			}
			line = bytes.TrimPrefix(line, space)
			continue
		}
		text[n], line, _ = bytes.Cut(line, space)
	}
	if n < albFields {
		return errLine
	}
	switch string(text[0]) {
	case "http", "https", "h2", "grpcs", "ws", "wss":
	default:
		return errLine
	}
	var ok bool
	if l.At, ok = f.clock.parse(text[albTime]); !ok {
		return errLine
	}
	if l.Status, ok = statusOf(text[albStatus]); !ok {
		if absent(text[albStatus]) {
			return ErrNotRequest
		}
		return errLine
	}
	if absent(text[albTarget]) {
		l.Answered = AnsweredProxy
	} else {
		l.Answered = AnsweredUpstream
	}
	l.Target = targetOf(text[albRequest])
	l.Who[roleAddress] = addressOf(text[albClient])
	if n > albError && !absent(text[albError]) {
		l.Reason = reasonOf(text[albError])
	}
	return nil
}
