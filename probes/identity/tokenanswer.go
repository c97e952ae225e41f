package identity

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
	"github.com/authvigil/authvigil/probes/wire"
)

// tokenAnswer is what a token endpoint says (RFC 6749 sections 5.1 and 5.2).
type tokenAnswer struct {
	AccessToken  string          `json:"access_token"`
	TokenType    string          `json:"token_type"`
	ExpiresIn    json.RawMessage `json:"expires_in"`
	RefreshToken string          `json:"refresh_token"`
	IDToken      string          `json:"id_token"`                 // OpenID Connect Core section 3.1.3.3
	RefreshLife1 json.RawMessage `json:"refresh_expires_in"`       // Keycloak
	RefreshLife2 json.RawMessage `json:"refresh_token_expires_in"` // GitHub, Microsoft, Salesforce
	RefreshLife3 json.RawMessage `json:"refresh_token_timeout"`    // draft-ietf-oauth-refresh-token-expiration: when it is not used
	RefreshLife4 json.RawMessage `json:"authorization_expires_in"` // the same: of the grant as a whole
	Scope        string          `json:"scope"`
	Error        string          `json:"error"`
	Description  string          `json:"error_description"`
}

// errorCode is the form of an error code; another text in its place is not repeated.
var errorCode = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,64}$`)

// readToken makes a token, or a fault, of the answer of a token endpoint. The body stays out of the exchange when it holds
// a token.
func readToken(a wire.Answer, x *evidence.Exchange) (obtained, error) {
	var t tokenAnswer
	notJSON := json.NewDecoder(bytes.NewReader(a.Body)).Decode(&t) != nil
	for _, text := range []string{t.AccessToken, t.RefreshToken, t.IDToken} {
		secret.Remember(text)
	}
	fault := &evidence.Fault{Stage: evidence.StageToken, Code: strconv.Itoa(x.Status)}
	if t.Error != "" && errorCode.MatchString(t.Error) {
		fault.Code = t.Error
	}
	where := "POST " + x.URL
	switch {
	case x.BodyCut:
		fault.Symptom, fault.Code, fault.Err = evidence.SymptomTooLarge, "body", fmt.Errorf("%s answered more than %d KiB", where, maxTokenAnswer>>10)
	case x.Status == http.StatusTooManyRequests:
		fault.Symptom, fault.Err = evidence.SymptomThrottled, fmt.Errorf("%s answered 429", where)
	case x.Status >= 500:
		fault.Symptom, fault.Err = evidence.SymptomServerError, fmt.Errorf("%s answered %d", where, x.Status)
	case x.Status/100 == 3:
		fault.Symptom, fault.Err = evidence.SymptomRedirected, fmt.Errorf("%s answered %d; a token endpoint is never followed elsewhere", where, x.Status)
	case t.Error == "temporarily_unavailable", t.Error == "server_error":
		fault.Symptom, fault.Err = evidence.SymptomServerError, fmt.Errorf("%s answered %d %s", where, x.Status, t.Error)
	case t.Error != "" || x.Status == http.StatusBadRequest || x.Status == http.StatusUnauthorized || x.Status == http.StatusForbidden:
		fault.Symptom = evidence.SymptomTokenRefused
		fault.Err = fmt.Errorf("%s answered %d %s", where, x.Status, fault.Code)
	case x.Status != http.StatusOK:
		fault.Symptom, fault.Err = evidence.SymptomUnexpected, fmt.Errorf("%s answered %d", where, x.Status)
	case notJSON:
		fault.Symptom, fault.Code, fault.Err = evidence.SymptomBadAnswer, "not_json", fmt.Errorf("%s answered 200 with no JSON document", where)
	case t.AccessToken == "":
		fault.Symptom, fault.Code, fault.Err = evidence.SymptomBadAnswer, "no_token", fmt.Errorf("%s answered 200 without access_token", where)
	default:
		return t.obtained(), nil
	}
	x.Body = wire.ShowBody(a.Body) // after Remember, so that a token beside an error does not show
	return obtained{}, fault
}

func (t tokenAnswer) obtained() obtained {
	facts := evidence.DecodeToken(t.AccessToken)
	facts.Obtained = time.Now()
	if len(facts.Scopes) == 0 {
		facts.Scopes = strings.Fields(evidence.Clean(t.Scope, 2048))
	}
	switch seconds, said, ok := lifetime(t.ExpiresIn); {
	case said && !ok:
		facts.Problems = append(facts.Problems, "expires_in is not a number of seconds")
	case said && seconds <= 0:
		facts.Problems = append(facts.Problems, "expires_in is not above zero")
	case said:
		facts.ExpiresIn = time.Duration(seconds * float64(time.Second))
		if facts.Expiry.IsZero() {
			facts.Expiry = facts.Obtained.Add(facts.ExpiresIn)
		}
	}
	got := obtained{text: secret.New(t.AccessToken), kind: evidence.Clean(t.TokenType, 32), facts: facts, refresh: secret.New(t.RefreshToken)}
	for _, raw := range []json.RawMessage{t.RefreshLife1, t.RefreshLife2, t.RefreshLife3, t.RefreshLife4} {
		seconds, said, ok := lifetime(raw)
		end := facts.Obtained.Add(time.Duration(seconds * float64(time.Second)))
		if said && ok && seconds > 0 && (got.refreshEnd.IsZero() || end.Before(got.refreshEnd)) {
			got.refreshEnd = end
		}
	}
	if t.IDToken != "" {
		id := evidence.DecodeToken(t.IDToken)
		id.Name, id.Obtained = "id", facts.Obtained
		got.id = &id
	}
	return got
}

// lifetime reads expires_in as servers send it: a number, with or without a fraction, or a number in quotes.
func lifetime(raw json.RawMessage) (seconds float64, said, ok bool) {
	text := strings.Trim(string(raw), `" `)
	if text == "" || text == "null" {
		return 0, false, true
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(seconds) || math.IsInf(seconds, 0) {
		return 0, true, false
	}
	const tenYears = 10 * 365 * 24 * 3600
	return min(seconds, tenYears), true, true
}
