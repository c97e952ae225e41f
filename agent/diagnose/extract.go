package diagnose

import (
	"encoding/json"
	"html"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	maxClauses = 64
	maxDepth   = 16
)

// words collects what a server says: error codes first, then prose, in clauses.
type words struct {
	clauses []clause
	codes   []string // error codes as sent, for the table of documented ones
	title   string   // of an HTML page
	html    bool
	binary  bool   // the body is no text
	odd     string // what could not be read, or is not what it is declared to be
	form    bool   // the page asks for a password
	status  int    // that the document or the gRPC status gives; 0: none
	failed  bool   // a document with a status of success says that it is a failure
	fields  map[string]string
	rest    []string // sentences in fields that are not known
	coded   bool     // a document holds a number that is no code of success
	fault   bool     // a SOAP fault, whose status is 500 whatever the matter (SOAP 1.1 section 6.2)
}

// add takes one field. Prose is split into sentences; a code is one clause.
func (w *words) add(text string, code bool) {
	text = strings.TrimSpace(inEnglish(text))
	if text == "" || len(w.clauses) >= maxClauses {
		return
	}
	if len(text) > 1024 {
		text = text[:1024]
	}
	if code {
		w.codes = append(w.codes, text)
	} else {
		text = withoutExamples(text)
	}
	for part := range strings.SplitSeq(normal(text), " | ") {
		w.clause(part, code)
	}
	if i := strings.LastIndex(text, ": "); i > 0 && !code { // of a chain of errors, the innermost says most
		inner, _, _ := strings.Cut(normal(text[i+2:]), " | ")
		if strings.Contains(inner, " ") {
			w.clause(inner, false)
		}
	}
}

func (w *words) clause(text string, code bool) {
	if text != "" && len(w.clauses) < maxClauses {
		w.clauses = append(w.clauses, clause{text, conceptsOf(text) | denialsIn(text), code, isHint(text)})
	}
}

// codeFields are names of fields that hold an error code, in normal form; proseFields those that hold a sentence.
var (
	codeFields  = map[string]bool{"error": true, "code": true, "error code": true, "errorcode": true, "type": true, "reason": true, "status": true, "err": true, "error type": true, "name": true, "internal error code": true, "error codes": true, "sub code": true, "suberror": true, "fault code": true, "faultcode": true, "kind": true, "ret code": true, "errcode": true, "error subcode": true, "error name": true, "title": true, "slug": true, "key": true, "response code": true, "resp code": true, "result code": true, "return code": true, "status code": true}
	proseFields = map[string]bool{"message": true, "error description": true, "detail": true, "details": true, "error message": true, "error summary": true, "description": true, "msg": true, "ret msg": true, "errmsg": true, "hint": true, "fault string": true, "faultstring": true, "errors": true, "error msg": true, "errormessage": true, "reason": true, "text": true, "user message": true, "developer message": true, "summary": true, "exp": true, "nbf": true, "iss": true, "aud": true, "sub msg": true, "info": true, "more info": true, "cause": true, "explanation": true, "localized message": true, "recommendation": true, "title": true, "body": true, "err msg": true, "response desc": true, "desc": true, "error desc": true, "resp msg": true, "return msg": true, "result msg": true, "non field errors": true, "string": true, "messages": true, "status message": true, "result": true, "data": true}
	// skipFields hold documentation, not what happened.
	skipFields = map[string]bool{"documentation url": true, "doc url": true, "help": true, "recommend": true, "error uri": true, "error link": true, "trace id": true, "timestamp": true, "request id": true, "correlation id": true, "instance": true, "host id": true, "email": true, "twitter": true, "statuspage": true, "locale": true, "url": true, "path": true, "realm": true, "host": true, "support": true, "href": true, "links": true, "resource metadata": true, "error id": true}
)

// body reads a document of any envelope: JSON, XML, HTML, a form, or plain text.
func (w *words) body(text, contentType string, status int) {
	trimmed := strings.TrimSpace(strings.TrimPrefix(text, "\ufeff"))
	for _, guard := range []string{")]}'", "while(1);", "for(;;);", "/**/"} { // put before JSON so that no script reads it
		trimmed = strings.TrimLeft(strings.TrimPrefix(trimmed, guard), ", \n")
	}
	w.unread(trimmed, contentType)
	switch {
	case w.binary:
	case trimmed == "":
	case trimmed[0] == '{' || (trimmed[0] == '[' || trimmed[0] == '"') && json.Valid([]byte(trimmed)):
		w.json(trimmed, status)
	case trimmed[0] == '<' && !looksHTML(trimmed):
		w.xml(trimmed)
	case trimmed[0] == '<' || looksHTML(trimmed):
		w.page(trimmed)
	case strings.HasPrefix(trimmed, "error=") || strings.Contains(contentType, "form-urlencoded"):
		w.query(trimmed)
	default:
		for _, mark := range []string{"err", "fail", "nok", "ko "} { // a plain word for how it went, whatever the status
			w.failed = w.failed || len(trimmed) >= len(mark) && strings.EqualFold(trimmed[:len(mark)], mark)
		}
		w.add(html.UnescapeString(trimmed), len(trimmed) < 64 && !strings.Contains(trimmed, " "))
	}
}

// unread notes what cannot be read: the finding says so.
func (w *words) unread(text, contentType string) {
	strange := strings.Count(text, "?") // what Clean put in place of what is no text
	switch {
	case len(text) >= 16 && strange*3 > len(text):
		w.binary, w.odd = true, "the body is no text and was not read"
	case strings.Contains(contentType, "json") && text != "" && !json.Valid([]byte(text)):
		w.odd = "the body is declared as JSON and is not, or was cut"
	case strings.Contains(contentType, "xml") && text != "" && text[0] != '<':
		w.odd = "the body is declared as XML and is not"
	}
}

func looksHTML(text string) bool {
	beginning := strings.ToLower(text[:min(len(text), 512)])
	for _, mark := range []string{"<html", "<!doctype html", "<head", "<body", "<center", "<h1", "<title", "<div", "<p>"} {
		if strings.Contains(beginning, mark) {
			return true
		}
	}
	return false
}

func (w *words) query(text string) {
	values, err := url.ParseQuery(strings.TrimPrefix(text, "?"))
	if err != nil && len(values) == 0 {
		return
	}
	for _, name := range []string{"error", "error_code", "error_reason"} {
		w.add(values.Get(name), true)
	}
	w.add(values.Get("error_description"), false)
	if values.Get("error") != "" {
		w.failed = true
	}
}

func (w *words) json(text string, status int) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil { // cut in the middle: the words are there all the same
		for part := range strings.SplitSeq(text, `"`) {
			if strings.Contains(part, " ") || len(part) > 6 {
				w.add(part, false)
			}
		}
		return
	}
	w.value("", v, 0, status)
	if len(w.clauses) == 0 { // no field that is known speaks: whatever is a sentence does
		for _, text := range w.rest {
			w.add(text, false)
		}
	}
}

// claim reads an object that names the claim which did not pass in a field of its own: {"claim": "aud", "reason": "check_failed"}.
func (w *words) claim(object map[string]any) {
	claim, _ := object["claim"].(string)
	if claim == "" || strings.Contains(claim, " ") {
		return
	}
	for _, name := range []string{"reason", "code", "error"} {
		if why, _ := object[name].(string); why != "" {
			w.add("the claim "+claim+": "+why, false)
		}
	}
}

func (w *words) value(name string, v any, depth, status int) {
	if depth > maxDepth {
		return
	}
	switch v := v.(type) {
	case map[string]any:
		names := make([]string, 0, len(v))
		for n := range v {
			names = append(names, n)
		}
		slices.SortFunc(names, func(a, b string) int { // codes first, then by name, so that the order is the same each time
			if ca, cb := codeFields[normal(a)], codeFields[normal(b)]; ca != cb {
				if ca {
					return -1
				}
				return 1
			}
			return strings.Compare(a, b)
		})
		w.claim(v)
		for _, n := range names {
			field := normal(n)
			switch value := v[n].(type) {
			case bool:
				if (field == "ok" || field == "success" || field == "active" || field == "valid" || field == "authenticated") && !value {
					w.failed = true
					if field == "active" {
						w.note("active", "false")
					}
				}
				if value && (field == "saml failure" || field == "error" || field == "is error") {
					w.failed = true
					w.add(field, true)
				}
				if value && field == "active" {
					w.note("active", "true")
				}
			case json.Number:
				if statusFields[field] {
					w.inner(value)
				}
				w.value(field, value, depth+1, status)
			default:
				if text, ok := value.(string); ok && outcomeFields[field] && failures[strings.ToLower(text)] {
					w.failed = true
				}
				if field == "errors" || field == "error" || field == "fault" || field == "error message" || field == "errmsg" && depth == 0 || field == "error code" {
					w.failed = w.failed || notEmpty(value)
				}
				w.value(field, value, depth+1, status)
			}
		}
		w.together(v)
	case []any:
		for _, e := range v[:min(len(v), 16)] {
			w.value(name, e, depth+1, status)
		}
	case string:
		switch {
		case skipFields[name]:
		case codeFields[name] && (len(v) < 120 && !strings.Contains(strings.TrimSpace(v), " ")):
			if strings.Contains(v, "://") || strings.HasPrefix(v, "urn:") || strings.HasPrefix(v, "tag:") { // a type of RFC 9457 names the problem at its end
				v = lastPart(v)
			}
			w.add(v, true)
			if n, err := strconv.Atoi(v); err == nil && depth <= 1 {
				w.coded = w.coded || n > 1 && n/100 != 2
			}
		case codeFields[name] || proseFields[name] || name == "":
			if strings.HasPrefix(strings.TrimSpace(v), "{") {
				w.json(v, status)
				return
			}
			w.add(html.UnescapeString(v), false)
			switch name { // a field that is named for a claim and says what is wrong with it
			case "exp", "nbf", "iss", "aud", "alg", "scope", "signature":
				w.add(name+" "+v, false)
			}
		}
		if strings.Count(v, " ") >= 1 && !skipFields[name] && len(w.rest) < 8 {
			w.rest = append(w.rest, html.UnescapeString(v))
		}
	case json.Number:
		if name == "error codes" { // Microsoft Entra: the numbers of AADSTS codes
			w.add("AADSTS"+v.String(), true)
		}
		if codeFields[name] && v.String() != "0" {
			w.codes = append(w.codes, v.String())
			n, err := v.Int64()
			w.coded = w.coded || depth <= 1 && err == nil && n != 1 && n/100 != 2
		}
	}
}

// outcomeFields say how a request went, and failures that it went badly, whatever the status of the answer.
var (
	outcomeFields = map[string]bool{"status": true, "stat": true, "result": true, "state": true, "outcome": true, "success": true, "ok": true, "ret": true}
	failures      = map[string]bool{"fail": true, "failed": true, "failure": true, "error": true, "err": true, "ko": true, "nok": true, "false": true, "denied": true, "rejected": true, "unauthorized": true}
	statusFields  = map[string]bool{"status": true, "status code": true, "http status": true, "http status code": true, "code": true, "error code": true, "http code": true, "statuscode": true}
)

// inner takes the status that a document gives beside that of its answer.
func (w *words) inner(n json.Number) {
	if v, err := n.Int64(); err == nil && v >= 400 && v < 600 && w.status == 0 {
		w.status = int(v)
	}
}

// partFields name what is wrong and reasonFields how, where a document says both in codes: {"resource":"RefreshToken","code":"invalid"}.
var (
	partFields   = []string{"resource", "field", "parameter", "param", "parameter_name", "location", "attribute", "target", "property", "source", "name"}
	reasonFields = []string{"code", "reason", "type", "error", "issue"}
)

// together reads the parts of an object that mean something only together.
func (w *words) together(v map[string]any) {
	var parts []string
	take := func(names []string) bool {
		before := len(parts)
		for _, n := range names {
			if text, ok := v[n].(string); ok && text != "" && len(text) <= 48 {
				parts = append(parts, text)
			}
		}
		return len(parts) > before
	}
	if take(partFields) && take(reasonFields) {
		w.add(strings.Join(parts, " "), false)
	}
}

func (w *words) note(name, value string) {
	if w.fields == nil {
		w.fields = map[string]string{}
	}
	w.fields[name] = value
}

func notEmpty(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case string:
		return v != ""
	case []any:
		return len(v) > 0
	case map[string]any:
		return len(v) > 0
	default:
		return true
	}
}

// withoutExamples drops parentheses that list what might be, as the sentences of RFC 6749 do: "(e.g., unknown client, …)".
func withoutExamples(text string) string {
	for {
		i := strings.Index(text, "(e.g.")
		if i < 0 {
			return text
		}
		j := strings.IndexByte(text[i:], ')')
		if j < 0 {
			return text
		}
		text = text[:i] + text[i+j+1:]
	}
}
