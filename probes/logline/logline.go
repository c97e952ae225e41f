// Package logline reads lines of access logs: when something was asked, where, by whom, and how it was answered.
//
// A [Reader] reads one format; [New] makes it from the table of formats. [Routes] makes endpoints of paths, as many as a label may
// have values and no more. Nothing here opens a file, follows one, or judges: that is done by package probes and the detector.
// Reading a line allocates nothing.
package logline

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Line is what a format reads out of one line of an access log. Its slices point into the line, or into memory that
// the format uses again for the next line.
type Line struct {
	At       time.Time
	Status   int
	Target   []byte // request target, with its query; of csv the endpoint as it is
	Whole    bool   // Target is an endpoint already: neither query nor ids in it
	Who      [roles][]byte
	Reason   []byte // error of the challenge, as far as it is logged
	Answered Answerer
}

// Client says who asked: the first of the roles that the line names; nil: none of them.
func (l *Line) Client(by []int) []byte {
	for _, role := range by {
		if name := l.Who[role]; !absent(name) {
			return name
		}
	}
	return nil
}

// Roles that a field may have in saying who asked, the best first.
const (
	roleSubject = iota // subject of a token, name in a client certificate
	roleClientID
	roleUser
	roleKey // id of an API key
	roleAddress
	roles
)

// RoleNames are the names of the roles, in the order of Line.Who: the best first.
var RoleNames = [roles]string{"subject", "client_id", "user", "key", "address"}

// An Answerer is who made the answer.
type Answerer uint8

// Who made the answer, as far as the line tells.
const (
	AnsweredUnknown Answerer = iota
	AnsweredProxy            // the server that wrote the log refused by itself
	AnsweredUpstream
)

// ErrNotRequest is what a comment, a header, or a line of another kind gives: it is neither good nor bad, and not counted as either.
var ErrNotRequest = errors.New("no request")

var errLine = errors.New("not of this format")

// A Reader reads lines. It may remember what a line says about those that follow, and so belongs to one source.
type Reader interface {
	// Read fills in what the line says. ErrNotRequest: the line is of no interest; any other error: it is not understood.
	Read(line []byte, into *Line) error
}

// Options is what the operator says about the format of a log.
type Options struct {
	LogFormat string            // format string of nginx or Apache
	Fields    map[string]string // role, time, status, path, reason or upstream_status: name of the field
	Inner     string            // format inside an envelope

	table map[string]func(Options) (Reader, error) // formats, for those that are made of others
}

// formats is the table of log formats.
var formats = map[string]func(Options) (Reader, error){
	"alb":        newALB,
	"auto":       newAuto,
	"combined":   newCombined,
	"common":     newCombined,
	"csv":        newCSV,
	"docker":     newDocker,
	"envoy":      newEnvoy,
	"haproxy":    newHAProxy,
	"iis":        newW3C,
	"json":       newJSON,
	"log_format": newLogFormat,
	"logfmt":     newLogfmt,
	"syslog":     newSyslog,
	"w3c":        newW3C,
}

// Names lists the formats, sorted.
func Names() []string {
	var names []string
	for name := range formats {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// New makes a reader of a format. An error names the option that is wrong.
func New(name string, o Options) (Reader, error) {
	build, ok := formats[name]
	if !ok {
		return nil, fmt.Errorf("unknown format %q; there are %s", name, strings.Join(Names(), ", "))
	}
	if name != "log_format" && o.LogFormat != "" {
		return nil, fmt.Errorf("log_format is given, but the format is %q; write format = \"log_format\"", name)
	}
	for role := range o.Fields {
		if !slices.Contains(fieldNames, role) {
			return nil, fmt.Errorf("fields: %q is none of %s", role, strings.Join(fieldNames, ", "))
		}
	}
	o.table = formats
	return build(o)
}

// A field is something that a line can say.
type field int

const (
	fieldNone field = -1
	fieldTime field = iota - 1 + roles // after the roles
	fieldStatus
	fieldPath
	fieldRequest // whole request line
	fieldReason
	fieldUpstream // status that the upstream answered
	fieldFlags    // response flags of Envoy
	fieldDetails  // response code details of Envoy
	fieldSubstatus
	fieldDate // of W3C: the day, the time of it stands elsewhere
	fields
)

// fieldNames are the names that operators may use, in the order of the constants.
var fieldNames = []string{"subject", "client_id", "user", "key", "address", "time", "status", "path", "request", "reason", "upstream_status", "flags", "details"}

// wellKnown names the fields of common servers, for formats that name them; those that stand first are preferred.
var wellKnown = []struct {
	name string
	is   field
}{
	{"sub", roleSubject}, {"subject", roleSubject}, {"jwt_claim_sub", roleSubject}, {"ssl_client_s_dn", roleSubject}, {"user.sub", roleSubject},
	{"client_id", roleClientID}, {"azp", roleClientID}, {"jwt_claim_client_id", roleClientID}, {"jwt_claim_azp", roleClientID}, {"consumer.username", roleClientID}, {"consumer", roleClientID},
	{"user", roleUser}, {"remote_user", roleUser}, {"ClientUsername", roleUser}, {"user_id", roleUser}, {"username", roleUser}, {"cs-username", roleUser}, {"user.name", roleUser},
	{"key_id", roleKey}, {"api_key_id", roleKey},
	{"client_ip", roleAddress}, {"request.client_ip", roleAddress}, {"ClientHost", roleAddress}, {"x-forwarded-for", roleAddress}, {"x_forwarded_for", roleAddress},
	{"http_x_forwarded_for", roleAddress}, {"downstream_remote_address", roleAddress}, {"remote_addr", roleAddress}, {"remote_ip", roleAddress},
	{"request.remote_ip", roleAddress}, {"clientip", roleAddress}, {"client", roleAddress}, {"c-ip", roleAddress}, {"source.ip", roleAddress}, {"ClientAddr", roleAddress}, {"request.remote_addr", roleAddress},
	{"time", fieldTime}, {"timestamp", fieldTime}, {"@timestamp", fieldTime}, {"ts", fieldTime}, {"time_iso8601", fieldTime}, {"time_local", fieldTime}, {"msec", fieldTime},
	{"start_time", fieldTime}, {"StartUTC", fieldTime}, {"StartLocal", fieldTime}, {"datetime", fieldTime}, {"date", fieldTime}, {"timestamp_ns", fieldTime},
	{"status", fieldStatus}, {"response_code", fieldStatus}, {"DownstreamStatus", fieldStatus}, {"status_code", fieldStatus}, {"http_status", fieldStatus}, {"response.status", fieldStatus},
	{"resp.status", fieldStatus}, {"sc-status", fieldStatus}, {"http.response.status_code", fieldStatus}, {"code", fieldStatus},
	{"request_uri", fieldPath}, {"uri", fieldPath}, {"path", fieldPath}, {"RequestPath", fieldPath}, {"request.uri", fieldPath}, {"x-envoy-original-path", fieldPath}, {"x-envoy-origin-path", fieldPath},
	{":path", fieldPath}, {"url.path", fieldPath}, {"url", fieldPath}, {"cs-uri-stem", fieldPath}, {"endpoint", fieldPath},
	{"request", fieldRequest}, {"http_request", fieldRequest}, {"req", fieldRequest},
	{"www_authenticate", fieldReason}, {"sent_http_www_authenticate", fieldReason}, {"upstream_http_www_authenticate", fieldReason}, {"resp_headers.Www-Authenticate", fieldReason},
	{"downstream_Www-Authenticate", fieldReason}, {"auth_error", fieldReason}, {"error_code", fieldReason},
	{"upstream_status", fieldUpstream}, {"OriginStatus", fieldUpstream}, {"backend_status", fieldUpstream},
	{"response_flags", fieldFlags}, {"response_code_details", fieldDetails},
}

// named is a field with the name it goes by.
type named struct {
	name string
	is   field
	rank int // of those with the same meaning the lowest wins
}

// namedFields is what the operator named, before what is well known.
func namedFields(o Options) []named {
	var list []named
	for i, role := range fieldNames {
		if name := o.Fields[role]; name != "" {
			list = append(list, named{strings.TrimPrefix(name, "$"), field(i), -1})
		}
	}
	for i, w := range wellKnown {
		if o.Fields[fieldNames[w.is]] == "" {
			list = append(list, named{w.name, w.is, i})
		}
	}
	return list
}

// values collects what a line says by field, each with the rank of its name.
type values struct {
	text [fields][]byte
	rank [fields]int
}

func (v *values) reset() { v.text = [fields][]byte{} }

func (v *values) set(f named, text []byte) {
	if absent(text) {
		if f.is != fieldUpstream && f.is != fieldStatus {
			return
		}
	}
	if v.text[f.is] != nil && v.rank[f.is] <= f.rank {
		return
	}
	v.text[f.is], v.rank[f.is] = text, f.rank
}

// absent says whether a field says that there is nothing to say.
func absent(text []byte) bool { return len(text) == 0 || len(text) == 1 && text[0] == '-' }

// into makes a line of the values.
func (v *values) into(l *Line, clock *timeReader) error {
	status, ok := statusOf(v.text[fieldStatus])
	if !ok {
		if v.text[fieldStatus] != nil && (absent(v.text[fieldStatus]) || string(v.text[fieldStatus]) == "0" || string(v.text[fieldStatus]) == "000") {
			return ErrNotRequest // the client went away before there was an answer
		}
		return errLine
	}
	l.Status = status
	if l.At, ok = clock.parse(v.text[fieldTime]); !ok {
		return errLine
	}
	switch {
	case v.text[fieldPath] != nil:
		l.Target = v.text[fieldPath]
	case v.text[fieldRequest] != nil:
		l.Target = targetOf(v.text[fieldRequest])
	default:
		return errLine
	}
	for role := range roles {
		l.Who[role] = v.text[role]
	}
	l.Who[roleAddress] = addressOf(v.text[roleAddress])
	l.Reason = reasonOf(v.text[fieldReason])
	l.Answered = v.answerer()
	return nil
}

// answerer concludes from the fields about the upstream who made the answer.
func (v *values) answerer() Answerer {
	if d := v.text[fieldDetails]; d != nil {
		if string(d) == "via_upstream" {
			return AnsweredUpstream
		}
		return AnsweredProxy
	}
	if bytes.Contains(v.text[fieldFlags], []byte("UAEX")) {
		return AnsweredProxy
	}
	switch u := v.text[fieldUpstream]; {
	case u == nil:
		return AnsweredUnknown
	case absent(u) || string(u) == "0":
		return AnsweredProxy
	}
	return AnsweredUpstream
}

// statusOf reads a status of three digits.
func statusOf(b []byte) (int, bool) {
	if len(b) != 3 || b[0] < '1' || b[0] > '9' {
		return 0, false
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// targetOf takes the target out of a request line; a request that is none has none.
func targetOf(request []byte) []byte {
	_, rest, ok := bytes.Cut(request, space)
	if !ok {
		return nil
	}
	if end := bytes.LastIndexByte(rest, ' '); end >= 0 && bytes.HasPrefix(rest[end+1:], []byte("HTTP/")) {
		rest = rest[:end]
	}
	return rest
}

var space = []byte(" ")

// addressOf takes the address out of address:port, [address]:port and lists of forwarded addresses, of which the first is the
// client's.
func addressOf(b []byte) []byte {
	if i := bytes.IndexByte(b, ','); i >= 0 {
		b = b[:i]
	}
	b = bytes.TrimSpace(b)
	if len(b) > 0 && b[0] == '[' {
		if i := bytes.IndexByte(b, ']'); i > 0 {
			return b[1:i]
		}
	}
	if i := bytes.IndexByte(b, ':'); i >= 0 && bytes.IndexByte(b[i+1:], ':') < 0 {
		b = b[:i]
	}
	if absent(b) {
		return nil
	}
	return b
}

// reasonOf takes the error out of a challenge (RFC 6750 section 3), or the word that stands for it.
func reasonOf(b []byte) []byte {
	if i := bytes.Index(b, []byte(`error=`)); i >= 0 {
		b = b[i+len(`error=`):]
		b = bytes.TrimLeft(b, `"\`)
		if i := bytes.IndexAny(b, `",\ `); i >= 0 {
			b = b[:i]
		}
		return b
	}
	if len(b) > 48 || bytes.IndexByte(b, ' ') >= 0 {
		return nil // a challenge without an error, or prose
	}
	return b
}
