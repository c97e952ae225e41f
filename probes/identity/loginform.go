package identity

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"

	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// A loginForm is what a login page wants back.
type loginForm struct {
	action             *url.URL
	username, password string     // names of the fields
	fields             url.Values // hidden ones, with their values
}

// findForm finds the form with a password field on a page. Its action must be on the origin of the page, or the password
// would go to somebody else.
func (s *session) findForm(page wire.Answer) (*loginForm, error) {
	fault := func(code, format string, args ...any) error {
		return &evidence.Fault{Stage: evidence.StageToken, Symptom: evidence.SymptomBadAnswer, Code: code, Err: fmt.Errorf("GET %s "+format, append([]any{page.Exchange.URL}, args...)...)}
	}
	if status := page.Exchange.Status; status != http.StatusOK {
		f := &evidence.Fault{Stage: evidence.StageToken, Symptom: evidence.SymptomUnexpected, Code: fmt.Sprint(status), Err: fmt.Errorf("GET %s answered %d in place of the login page", page.Exchange.URL, status)}
		if status >= 500 {
			f.Symptom = evidence.SymptomServerError
		}
		return nil, f
	}
	f := parseLoginForm(page.Body)
	if f == nil {
		return nil, fault("no_form", "is a page without a form with a password field; for an API that takes a login, set format = \"json\"")
	}
	if s.PasswordField == "" && f.password == "" {
		return nil, fault("no_form", "has a password field without a name; set password_field")
	}
	if s.UsernameField == "" && f.username == "" {
		return nil, fault("no_form", "has no text field for the user name; set username_field")
	}
	action, err := s.login.Parse(f.action.String())
	if err != nil || wire.Origin(action) != wire.Origin(s.login) {
		return nil, fault("foreign_form", "has a form that leads to another origin; the password is not sent there")
	}
	f.action = action
	return f, nil
}

// hasPasswordField says whether a page shows a login form.
func hasPasswordField(body []byte) bool { return parseLoginForm(body) != nil }

// parseLoginForm reads the first form with a password field; nil where there is none. The user name is the last field for
// text before the password.
func parseLoginForm(body []byte) *loginForm {
	var f *loginForm
	text, found := "", false
	z := html.NewTokenizer(bytes.NewReader(body))
	for fields := 0; fields < 1000; {
		switch z.Next() {
		case html.ErrorToken:
			if found {
				return f
			}
			return nil
		case html.EndTagToken:
			if name, _ := z.TagName(); atom.Lookup(name) == atom.Form {
				if found {
					return f
				}
				f = nil
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			t := z.Token()
			attribute := map[string]string{}
			for _, a := range t.Attr {
				attribute[a.Key] = a.Val
			}
			switch t.DataAtom {
			case atom.Form:
				action, err := url.Parse(strings.TrimSpace(attribute["action"]))
				if err != nil {
					continue
				}
				f, text = &loginForm{action: action, fields: url.Values{}}, ""
			case atom.Input:
				if f == nil {
					continue
				}
				fields++
				name := attribute["name"]
				switch kind := strings.ToLower(attribute["type"]); kind {
				case "password":
					if !found {
						found, f.password, f.username = true, name, text
					}
				case "hidden":
					if name != "" {
						f.fields.Add(name, attribute["value"])
					}
				case "", "text", "email", "tel":
					if !found {
						text = name
					}
				}
			}
		}
	}
	return nil
}
