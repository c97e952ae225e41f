package diagnose

import (
	"encoding/xml"
	"html"
	"io"
	"strings"
)

// xml reads a document of XML: a SOAP fault, an error of AWS, a status of SAML; texts by the name of their element, and attributes.
func (w *words) xml(text string) {
	d := xml.NewDecoder(strings.NewReader(text))
	d.Strict = false
	d.Entity = xml.HTMLEntity
	name := ""
	for range 512 {
		t, err := d.RawToken()
		if err != nil {
			if err != io.EOF {
				w.add(stripTags(text), false)
			}
			return
		}
		switch t := t.(type) {
		case xml.StartElement:
			name = normal(t.Name.Local)
			w.fault = w.fault || name == "fault" || name == "faultcode"
			for _, a := range t.Attr { // <err code="100" msg="…"/>, <samlp:StatusCode Value="…"/>
				w.attribute(name, normal(a.Name.Local), a.Value)
			}
		case xml.CharData:
			value := strings.TrimSpace(string(t))
			switch {
			case value == "" || skipFields[name]:
			case codeFields[name] && !strings.Contains(value, " "):
				_, local, found := strings.Cut(value, ":") // sf:INVALID_SESSION_ID
				if !found {
					local = value
				}
				w.add(local, true)
			default:
				w.add(value, false)
			}
		}
	}
}

// attribute reads an attribute that says how things went.
func (w *words) attribute(element, name, value string) {
	switch {
	case value == "" || len(value) > 256 || skipFields[name]:
	case outcomeFields[name] && failures[strings.ToLower(value)]:
		w.failed = true
	case name == "value" && strings.HasSuffix(element, "status code"): // SAML core section 3.2.2.2
		w.add(lastPart(value), true)
	case name == "code" || name == "error code" || name == "errorcode":
		w.add(lastPart(value), true)
	case name == "msg" || name == "message" || name == "error" || name == "description" || name == "reason":
		w.add(value, false)
	}
}

// lastPart gives what a URI names at its end: https://…/errors/token-expired, urn:…:status:RequestDenied.
func lastPart(uri string) string {
	if !strings.Contains(uri, ":") {
		return uri
	}
	if i := strings.LastIndexAny(strings.TrimRight(uri, "/#"), "/#:"); i >= 0 {
		return strings.TrimRight(uri[i+1:], "/#")
	}
	return uri
}

// loginMarks are what pages hold that send a browser on to log in: forms of SAML (bindings section 3.5) and of OpenID Connect that send
// themselves, and portals.
var loginMarks = []string{`name="samlrequest"`, `name='samlrequest'`, `name="relaystate"`, "/oauth2/authorize", "/oauth/authorize", "/protocol/openid-connect/auth", "accounts.google.com/", "login.microsoftonline.com/", "/saml2", "/adfs/ls", "/cas/login"}

// page reads an HTML page: title, headings and visible text.
func (w *words) page(text string) {
	w.html = true
	lower := strings.ToLower(text)
	w.form = strings.Contains(lower, `type="password"`) || strings.Contains(lower, `type='password'`) || strings.Contains(lower, "type=password")
	for _, mark := range loginMarks {
		w.form = w.form || strings.Contains(lower, mark) && (strings.Contains(lower, "<form") || strings.Contains(lower, "http-equiv") || strings.Contains(lower, "location"))
	}
	if _, rest, found := strings.Cut(lower, "<title"); found {
		if _, rest, found = strings.Cut(rest, ">"); found {
			title, _, _ := strings.Cut(rest, "<")
			w.title = normal(html.UnescapeString(title))
		}
	}
	w.add(stripTags(text), false)
}

// stripTags gives the visible text of a page; the end of a block ends a sentence.
func stripTags(text string) string {
	var b strings.Builder
	for len(text) > 0 && b.Len() < 4096 {
		before, rest, found := strings.Cut(text, "<")
		b.WriteString(before)
		if !found {
			break
		}
		tag, after, _ := strings.Cut(rest, ">")
		name := strings.ToLower(strings.Trim(strings.Fields(tag + " x")[0], "/"))
		switch name {
		case "script", "style":
			if _, beyond, closed := strings.Cut(after, "</"+name); closed {
				_, after, _ = strings.Cut(beyond, ">")
			}
		case "code", "b", "i", "a", "em", "strong", "span", "font":
		default:
			b.WriteString("\n")
		}
		text = after
	}
	return html.UnescapeString(b.String())
}
