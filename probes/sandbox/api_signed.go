package sandbox

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// signedWindow is how far the timestamp of a signed request may be from the API's clock.
const signedWindow = 5 * time.Minute

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// serveHMAC wants X-Key-Id: KeyName, X-Timestamp: seconds since 1970, and X-Signature: HMAC-SHA256 by HMACKey in hexadecimal
// over these lines, joined by \n: method, request target (path and query), timestamp, SHA-256 of the body in hexadecimal.
func (a *API) serveHMAC(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	stamp := r.Header.Get("X-Timestamp")
	seconds, notNumber := strconv.ParseInt(stamp, 10, 64)
	fail := func(code, message string) {
		writeJSON(rw, http.StatusUnauthorized, map[string]any{"error": code, "message": message})
	}
	switch {
	case r.Header.Get("X-Signature") == "":
		fail("missing_signature", "The request is not signed")
	case err != nil || notNumber != nil:
		fail("bad_timestamp", "The header X-Timestamp is not a number of seconds")
	case r.Header.Get("X-Key-Id") != KeyName:
		fail("unknown_key", "The key id is not known")
	case !hmac.Equal([]byte(r.Header.Get("X-Signature")), []byte(hex.EncodeToString(mac([]byte(HMACKey), strings.Join([]string{r.Method, r.URL.RequestURI(), stamp, hexSum(body)}, "\n"))))):
		fail("invalid_signature", "The signature does not match the request")
	case a.now().Sub(time.Unix(seconds, 0)).Abs() > signedWindow:
		fail("request_expired", "The request timestamp is outside the accepted window")
	default:
		a.welcome(rw, KeyName)
	}
}

// serveSigV4 wants a request signed by AWS Signature Version 4 in the header Authorization.
func (a *API) serveSigV4(rw http.ResponseWriter, r *http.Request) {
	fail := func(kind, message string) {
		rw.Header().Set("X-Amzn-ErrorType", kind)
		writeJSON(rw, http.StatusForbidden, map[string]any{"message": message})
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	algorithm, rest, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if algorithm != "AWS4-HMAC-SHA256" || err != nil {
		fail("MissingAuthenticationTokenException", "Missing Authentication Token")
		return
	}
	p := parseParameters(rest)
	scope := strings.Split(p["credential"], "/")
	stamp := r.Header.Get("X-Amz-Date")
	when, err := time.Parse("20060102T150405Z", stamp)
	if len(scope) != 5 || err != nil || scope[1] != stamp[:8] || scope[4] != "aws4_request" || p["signedheaders"] == "" {
		fail("IncompleteSignatureException", "The signature is incomplete")
		return
	}
	now := a.now().UTC()
	switch {
	case scope[0] != AWSKeyID:
		fail("UnrecognizedClientException", "The security token included in the request is invalid.")
	case scope[2] != AWSRegion || scope[3] != AWSService:
		fail("InvalidSignatureException", fmt.Sprintf("Credential should be scoped to a valid region and service, not %s/%s.", quotable(scope[2]), quotable(scope[3])))
	case now.Sub(when) > signedWindow:
		fail("InvalidSignatureException", fmt.Sprintf("Signature expired: %s is now earlier than %s (%s - 5 min.)", stamp, now.Add(-signedWindow).Format("20060102T150405Z"), now.Format("20060102T150405Z")))
	case when.Sub(now) > signedWindow:
		fail("InvalidSignatureException", fmt.Sprintf("Signature not yet current: %s is still later than %s (%s + 5 min.)", stamp, now.Add(signedWindow).Format("20060102T150405Z"), now.Format("20060102T150405Z")))
	case !hmac.Equal([]byte(p["signature"]), []byte(awsSign(AWSSecret, r, body, strings.Split(p["signedheaders"], ";"), scope, stamp))):
		fail("InvalidSignatureException", "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method.")
	default:
		a.welcome(rw, AWSKeyID)
	}
}

// awsSign gives the AWS Signature Version 4 of a request ("Create a signed AWS API request" in the IAM guide).
func awsSign(secret string, r *http.Request, body []byte, headers, scope []string, stamp string) string {
	var pairs []string
	for name, values := range r.URL.Query() {
		for _, value := range values {
			pairs = append(pairs, awsEscape(name)+"="+awsEscape(value))
		}
	}
	slices.Sort(pairs)
	var lines []string
	for _, name := range headers {
		value := strings.Join(r.Header.Values(name), ",")
		if name == "host" {
			value = r.Host
		}
		lines = append(lines, name+":"+strings.Join(strings.Fields(value), " ")+"\n")
	}
	payload := r.Header.Get("X-Amz-Content-Sha256")
	if payload == "" || payload != "UNSIGNED-PAYLOAD" {
		payload = hexSum(body)
	}
	segments := strings.Split(r.URL.EscapedPath(), "/")
	for n, s := range segments {
		segments[n] = awsEscape(s) // encoded twice for all services but S3
	}
	canonical := strings.Join([]string{r.Method, strings.Join(segments, "/"), strings.Join(pairs, "&"), strings.Join(lines, ""), strings.Join(headers, ";"), payload}, "\n")
	text := strings.Join([]string{"AWS4-HMAC-SHA256", stamp, strings.Join(scope[1:], "/"), hexSum([]byte(canonical))}, "\n")
	key := []byte("AWS4" + secret)
	for _, part := range scope[1:] {
		key = mac(key, part)
	}
	return hex.EncodeToString(mac(key, text))
}

func awsEscape(s string) string {
	return strings.NewReplacer("+", "%20", "%7E", "~", "*", "%2A").Replace(url.QueryEscape(s))
}
