package diagnose

import (
	"bufio"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/authvigil/authvigil/probes/evidence"
)

// maxTranscript bounds how much of a pasted transcript is read.
const maxTranscript = 1 << 20

// ReadTranscript reads what `curl -i` or `curl -v` printed: requests with > before each line, answers with < or as they
// came, and what curl says of the connection with * before it. The last exchange decides. Credentials in it are not kept.
func ReadTranscript(r io.Reader, now time.Time) (Case, error) {
	t := transcript{}
	lines := bufio.NewScanner(io.LimitReader(r, maxTranscript))
	lines.Buffer(make([]byte, 0, 64<<10), maxTranscript)
	for lines.Scan() {
		t.line(strings.TrimRight(lines.Text(), "\r"))
	}
	if err := lines.Err(); err != nil {
		return Case{}, err
	}
	t.end()
	if len(t.exchanges) == 0 && t.trouble == "" {
		return Case{}, errors.New("no answer is in it: paste the output of curl -i or curl -v, with its status line (HTTP/1.1 401 …)")
	}
	c := Case{Now: now, Sighting: Sighting{Report: evidence.Report{Exchanges: t.exchanges}, Fault: &evidence.Fault{Stage: evidence.StageAPI, Symptom: evidence.SymptomUnknown}, Endpoint: t.host}}
	if len(t.exchanges) == 0 {
		x := t.x
		x.Fault = &evidence.Fault{Stage: evidence.StageConnect, Symptom: evidence.SymptomUnknown, Err: errors.New(t.trouble)}
		c.Sighting.Report.Exchanges = []evidence.Exchange{x}
	}
	if t.token != "" {
		facts := evidence.DecodeToken(t.token)
		if facts.Format == "jwt" || len(facts.Problems) > 0 {
			c.Sighting.Report.Token = &facts
		}
	}
	if n := len(c.Sighting.Report.Exchanges); n > 0 {
		c.Sighting.Scheme = c.Sighting.Report.Exchanges[n-1].Scheme
		if last := c.Sighting.Report.Exchanges[n-1]; last.Status/100 == 2 && last.Fault == nil {
			probe := factsOf(&c)
			if !probe.words.failed && !probe.words.html {
				c.Sighting.Fault = nil
			}
		}
	}
	return c, nil
}

type transcript struct {
	exchanges []evidence.Exchange
	x         evidence.Exchange
	host      string
	path      string
	token     string // of the last Authorization header; only its facts leave this file
	trouble   string
	answering bool // an answer has begun
	body      strings.Builder
	inBody    bool
	verbose   bool // lines have marks
}

func (t *transcript) line(s string) {
	mark := ""
	if len(s) >= 1 && strings.ContainsRune("<>*{}", rune(s[0])) && (len(s) == 1 || s[1] == ' ') {
		mark, s = s[:1], strings.TrimPrefix(s[1:], " ")
		t.verbose = true
	}
	switch {
	case mark == ">":
		t.request(s)
	case mark == "*":
		t.remark(s)
	case mark == "{" || mark == "}":
	case strings.HasPrefix(s, "HTTP/") && statusOf(s) != 0:
		t.status(s)
	case strings.HasPrefix(s, "curl: ("):
		t.remark(s)
	case t.answering && !t.inBody:
		t.header(s)
		if mark == "" && t.verbose && s != "" && !strings.Contains(s, ":") {
			t.body.WriteString(s + "\n")
		}
	case t.inBody && mark == "":
		t.body.WriteString(s + "\n")
	}
}

func (t *transcript) request(s string) {
	words := strings.Fields(s)
	if len(words) == 3 && strings.HasPrefix(words[2], "HTTP/") {
		t.end()
		t.x = evidence.Exchange{Stage: evidence.StageAPI, Method: evidence.Clean(words[0], 16), Scheme: "none"}
		t.path, _, _ = strings.Cut(words[1], "?")
		if strings.HasSuffix(t.path, "/token") || strings.Contains(t.path, "oauth2/token") || strings.Contains(t.path, "/oauth/token") {
			t.x.Stage = evidence.StageToken
		}
		return
	}
	name, value, found := strings.Cut(s, ":")
	if !found {
		return
	}
	value = strings.TrimSpace(value)
	switch name = strings.ToLower(name); {
	case name == "host":
		t.host = evidence.Clean(value, 256)
	case name == "authorization":
		scheme, credential, _ := strings.Cut(value, " ")
		t.x.Scheme, t.token = strings.ToLower(evidence.Clean(scheme, 32)), ""
		switch t.x.Scheme {
		case "bearer", "dpop":
			t.token = strings.TrimSpace(credential)
		case "basic":
			if t.x.Stage == evidence.StageToken {
				t.x.Scheme = "client_credentials"
			}
		case "aws4-hmac-sha256":
			t.x.Scheme = "sigv4"
		}
	case strings.Contains(name, "api-key") || strings.Contains(name, "apikey") || name == "x-auth-token" || name == "private-token" || strings.HasSuffix(name, "-key"):
		t.x.Scheme = "api_key"
	case name == "cookie" && t.x.Scheme == "none":
		t.x.Scheme = "session"
	}
}

// remark reads what curl says of the connection.
func (t *transcript) remark(s string) {
	lower := strings.ToLower(s)
	for _, word := range []string{"could not resolve", "connection refused", "timed out", "ssl certificate problem", "ssl: no alternative", "certificate has expired", "self-signed", "self signed", "failed to connect", "empty reply", "connection reset", "alert", "subjectaltname", "unable to get local issuer", "proxy connect", "curl: ("} {
		if strings.Contains(lower, word) && !strings.Contains(lower, "alpn") && !strings.HasPrefix(lower, "subjectaltname:") {
			t.trouble = evidence.Clean(s, 512)
			return
		}
	}
}

func statusOf(s string) int {
	words := strings.Fields(s)
	if len(words) < 2 {
		return 0
	}
	n, err := strconv.Atoi(words[1])
	if err != nil || n < 100 || n > 599 {
		return 0
	}
	return n
}

func (t *transcript) status(s string) {
	if t.answering {
		t.end()
	}
	n := statusOf(s)
	if n < 200 {
		return
	}
	if t.x.Stage == "" {
		t.x.Stage = evidence.StageAPI
	}
	t.x.Status, t.x.Header, t.answering, t.inBody = n, map[string][]string{}, true, false
	t.x.URL = t.host + evidence.Clean(t.path, 256)
}

func (t *transcript) header(s string) {
	if strings.TrimSpace(s) == "" {
		t.inBody = true
		return
	}
	name, value, found := strings.Cut(s, ":")
	if !found || strings.ContainsAny(name, " \t{<") {
		t.inBody = true
		return
	}
	key := canonical(name)
	if key == "Set-Cookie" {
		value, _, _ = strings.Cut(value, "=")
	}
	t.x.Header[key] = append(t.x.Header[key], evidence.Clean(strings.TrimSpace(value), 2048))
}

func (t *transcript) end() {
	if !t.answering {
		return
	}
	t.x.Body = evidence.Clean(strings.TrimSpace(t.body.String()), 8192)
	t.exchanges = append(t.exchanges, t.x)
	t.body.Reset()
	t.answering, t.inBody = false, false
	scheme, stage := t.x.Scheme, t.x.Stage
	t.x = evidence.Exchange{Scheme: scheme, Stage: stage, Method: t.x.Method}
}
