package probes

import "bytes"

// envoy reads the default text of Envoy, and that of Istio, which has the details of the response after the flags:
//
//	[time] "GET /path HTTP/1.1" status flags [details termination "failure"] received sent duration upstream "forwarded" …
type envoy struct{ clock logClock }

func newEnvoy(logOptions) (logFormat, error) { return &envoy{}, nil }

func (f *envoy) read(line []byte, l *logLine) error {
	if len(line) == 0 || line[0] != '[' {
		return errLine
	}
	end := bytes.IndexByte(line, ']')
	if end < 0 {
		return errLine
	}
	var ok bool
	if l.at, ok = f.clock.parse(line[1:end]); !ok {
		return errLine
	}
	rest := bytes.TrimPrefix(line[end+1:], space)
	request, rest, ok := quoted(rest)
	if !ok {
		return errLine
	}
	l.target = targetOf(request)
	status, rest, _ := bytes.Cut(bytes.TrimPrefix(rest, space), space)
	if l.status, ok = statusOf(status); !ok {
		if string(status) == "0" {
			return errNotRequest
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
	l.who[roleAddress] = addressOf(forwarded)
	switch {
	case bytes.Contains(flags, []byte("UAEX")):
		l.answered = answeredProxy
	case details != nil:
		l.answered = answeredProxy
		if string(details) == "via_upstream" {
			l.answered = answeredUpstream
		}
	case bytes.HasSuffix(line, []byte(`"-"`)): // no upstream host
		l.answered = answeredProxy
	default:
		l.answered = answeredUpstream
	}
	if l.answered == answeredProxy && l.status == 401 && details != nil {
		if i := bytes.IndexByte(details, '{'); i > 0 { // jwt_authn_access_denied{Jwt_is_expired}
			l.reason = reasonOf(bytes.TrimRight(details[i+1:], "}"))
		}
	}
	return nil
}
