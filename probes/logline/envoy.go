package logline

import "bytes"

// envoy reads the default text of Envoy, and that of Istio, which has the details of the response after the flags:
//
//	[time] "GET /path HTTP/1.1" status flags [details termination "failure"] received sent duration upstream "forwarded" …
type envoy struct{ clock timeReader }

func newEnvoy(Options) (Reader, error) { return &envoy{}, nil }

func (f *envoy) Read(line []byte, l *Line) error {
	if len(line) == 0 || line[0] != '[' {
		return errLine
	}
	end := bytes.IndexByte(line, ']')
	if end < 0 {
		return errLine
	}
	var ok bool
	if l.At, ok = f.clock.parse(line[1:end]); !ok {
		return errLine
	}
	rest := bytes.TrimPrefix(line[end+1:], space)
	request, rest, ok := quoted(rest)
	if !ok {
		return errLine
	}
	l.Target = targetOf(request)
	status, rest, _ := bytes.Cut(bytes.TrimPrefix(rest, space), space)
	if l.Status, ok = statusOf(status); !ok {
		if string(status) == "0" {
			return ErrNotRequest
		}
		return errLine
	}
	flags, rest, ok := bytes.Cut(rest, space)
	if !ok {
		return errLine
	}
	details, rest, _ := bytes.Cut(rest, space)
	quotes := 1
	if n, ok := digits(details); ok && n >= 0 { // bytes received: there are no details
		details = nil
	} else {
		quotes = 2
	}
	var forwarded []byte
	for range quotes {
		i := bytes.IndexByte(rest, '"')
		if i < 0 {
			break
		}
		if forwarded, rest, ok = quoted(rest[i:]); !ok {
			break
		}
	}
	l.Who[roleAddress] = addressOf(forwarded)
	switch {
	case bytes.Contains(flags, []byte("UAEX")):
		l.Answered = AnsweredProxy
	case details != nil:
		l.Answered = AnsweredProxy
		if string(details) == "via_upstream" {
			l.Answered = AnsweredUpstream
		}
	case bytes.HasSuffix(line, []byte(`"-"`)): // no upstream host
		l.Answered = AnsweredProxy
	default:
		l.Answered = AnsweredUpstream
	}
	if l.Answered == AnsweredProxy && l.Status == 401 && details != nil {
		if i := bytes.IndexByte(details, '{'); i > 0 { // jwt_authn_access_denied{Jwt_is_expired}
			l.Reason = reasonOf(bytes.TrimRight(details[i+1:], "}"))
		}
	}
	return nil
}
