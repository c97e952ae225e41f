package logline

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// userFormat reads lines as a format string of nginx ($status) or Apache (%>s) says they are written.
type userFormat struct {
	clock  timeReader
	first  []byte // text before the first variable
	parts  []part
	values values
}

// A part is a variable and the text that follows it.
type part struct {
	field  named
	keep   bool
	quoted bool // the text before it ends with a quote: it goes to the next quote that is not escaped
	after  []byte
}

var nginxVariable = regexp.MustCompile(`\$(\w+|\{\w+\})`)

// nginxNames says what the variables of nginx mean that are called otherwise than fields of JSON.
var nginxNames = map[string]field{
	"remote_addr": roleAddress, "realip_remote_addr": roleAddress, "http_x_forwarded_for": roleAddress, "proxy_protocol_addr": roleAddress,
	"remote_user": roleUser, "time_local": fieldTime, "time_iso8601": fieldTime, "msec": fieldTime, "request": fieldRequest, "request_uri": fieldPath, "uri": fieldPath,
	"document_uri": fieldPath, "status": fieldStatus, "upstream_status": fieldUpstream, "ssl_client_s_dn": roleSubject, "ssl_client_s_dn_legacy": roleSubject,
	"jwt_claim_sub": roleSubject, "jwt_claim_client_id": roleClientID, "jwt_claim_azp": roleClientID, "sent_http_www_authenticate": fieldReason, "upstream_http_www_authenticate": fieldReason,
	"http_x_api_key": roleKey, "http_x_client_id": roleClientID, "http_x_user": roleUser,
}

var apacheDirective = regexp.MustCompile(`%[<>]?(?:\{[^}]*\})?(?:\^[a-z]{2}|[a-zA-Z%])`)

// apacheNames says what the directives of Apache mean.
var apacheNames = map[string]field{
	"%h": roleAddress, "%a": roleAddress, "%{c}a": roleAddress, "%u": roleUser, "%t": fieldTime, "%r": fieldRequest, "%U": fieldPath, "%s": fieldStatus, "%>s": fieldStatus, "%<s": fieldNone,
	"%{SSL_CLIENT_S_DN}x": roleSubject, "%{WWW-Authenticate}o": fieldReason, "%{X-Forwarded-For}i": roleAddress, "%{X-Client-Id}i": roleClientID,
}

func newLogFormat(o Options) (Reader, error) {
	if o.LogFormat == "" {
		return nil, fmt.Errorf("log_format is missing: the text after the name in nginx' log_format, or of Apache's LogFormat")
	}
	if len(o.LogFormat) > 8<<10 {
		return nil, fmt.Errorf("log_format: %d bytes are too many", len(o.LogFormat))
	}
	variable, meaning := nginxVariable, nginxMeaning(o)
	if !strings.Contains(o.LogFormat, "$") {
		variable, meaning = apacheDirective, apacheMeaning(o)
	}
	f := &userFormat{}
	format := strings.TrimSpace(o.LogFormat)
	at := 0
	var has [fields]bool
	for _, m := range variable.FindAllStringIndex(format, -1) {
		text := format[at:m[0]]
		if at == 0 && len(f.parts) == 0 {
			f.first = []byte(text)
		} else {
			if text == "" {
				return nil, fmt.Errorf("log_format: nothing stands between %s and what is before it, so that their ends cannot be told", format[m[0]:m[1]])
			}
			f.parts[len(f.parts)-1].after = []byte(text)
		}
		n := meaning(format[m[0]:m[1]])
		if n.is != fieldNone {
			has[n.is] = true
		}
		f.parts = append(f.parts, part{field: n, keep: n.is != fieldNone, quoted: strings.HasSuffix(text, `"`)})
		at = m[1]
	}
	if len(f.parts) > 0 {
		f.parts[len(f.parts)-1].after = []byte(format[at:])
	}
	var missing []string
	if !has[fieldTime] {
		missing = append(missing, "the time ($time_local, $time_iso8601, $msec; %t)")
	}
	if !has[fieldStatus] {
		missing = append(missing, "the status ($status; %>s)")
	}
	if !has[fieldPath] && !has[fieldRequest] {
		missing = append(missing, "the request ($request, $request_uri, $uri; %r, %U)")
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("log_format lacks %s", strings.Join(missing, " and "))
	}
	return f, nil
}

func nginxMeaning(o Options) func(string) named {
	return func(variable string) named {
		name := strings.Trim(variable, "${}")
		for i, role := range fieldNames {
			if strings.Trim(o.Fields[role], "${}") == name {
				return named{name, field(i), -1}
			}
		}
		if is, ok := nginxNames[name]; ok {
			return named{name, is, rankOf(name, is)}
		}
		return named{is: fieldNone}
	}
}

func apacheMeaning(o Options) func(string) named {
	return func(directive string) named {
		for i, role := range fieldNames {
			if o.Fields[role] == directive {
				return named{directive, field(i), -1}
			}
		}
		if is, ok := apacheNames[directive]; ok {
			return named{directive, is, 0}
		}
		if strings.HasSuffix(directive, "}t") {
			return named{directive, fieldTime, 0}
		}
		return named{is: fieldNone}
	}
}

// rankOf prefers the forwarded address to that of the proxy before us.
func rankOf(name string, is field) int {
	i := slices.IndexFunc(wellKnown, func(w struct {
		name string
		is   field
	}) bool {
		return w.name == name && w.is == is
	})
	if i < 0 {
		return len(wellKnown)
	}
	return i
}

func (f *userFormat) Read(line []byte, l *Line) error {
	if !bytes.HasPrefix(line, f.first) {
		return errLine
	}
	f.values.reset()
	rest := line[len(f.first):]
	for i := range f.parts {
		p := &f.parts[i]
		end := len(rest)
		if len(p.after) > 0 {
			if end = p.end(rest); end < 0 {
				return errLine
			}
		}
		if p.keep {
			f.values.set(p.field, rest[:end])
		}
		rest = rest[min(len(rest), end+len(p.after)):]
	}
	return f.values.into(l, &f.clock)
}

// end finds where a variable ends: at the text that follows it, outside of escapes.
func (p *part) end(rest []byte) int {
	from := 0
	for {
		i := bytes.Index(rest[from:], p.after)
		if i < 0 {
			return -1
		}
		i += from
		escapes := 0
		for p.quoted && i-escapes > 0 && rest[i-escapes-1] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return i
		}
		from = i + 1
	}
}
