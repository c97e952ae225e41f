package logline

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Cases are files: a line of the log, and below it what is to be read out of it, after two blanks: time, status, endpoint,
// who asked (role=name), who answered, the reason; or "no request", or "bad".
func TestLogFormats(t *testing.T) {
	files, err := filepath.Glob("testdata/lines/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	covered := map[string]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".txt"), "-")
		covered[name] = true
		var o Options
		var reader Reader
		lines := strings.Split(string(text), "\n")
		for i := 0; i < len(lines); i++ {
			line := lines[i]
			if option, ok := strings.CutPrefix(line, "@log_format "); ok {
				o.LogFormat, reader = option, nil
				continue
			}
			if option, ok := strings.CutPrefix(line, "@field "); ok {
				role, field, _ := strings.Cut(option, "=")
				if o.Fields == nil {
					o.Fields = map[string]string{}
				}
				o.Fields[role], reader = field, nil
				continue
			}
			if line == "" || strings.HasPrefix(line, "## ") {
				continue
			}
			if reader == nil {
				if reader, err = New(name, o); err != nil {
					t.Fatalf("%s: %v", file, err)
				}
			}
			got := described(reader, []byte(line))
			if i+1 >= len(lines) || !strings.HasPrefix(lines[i+1], "  ") {
				t.Errorf("%s:%d: no expectation; got\n  %s", file, i+1, got)
				continue
			}
			i++
			if want := strings.TrimSpace(lines[i]); got != want {
				t.Errorf("%s:%d:\n got  %s\n want %s\n line %s", file, i+1, got, want, line)
			}
			if name != "csv" && name != "log_format" && name != "w3c" && name != "iis" && len(o.Fields) == 0 && !strings.HasPrefix(lines[i], "  bad") {
				found, _ := New("auto", Options{})
				if auto := described(found, []byte(line)); auto != got {
					t.Errorf("%s:%d: auto reads\n  %s\nwant\n  %s", file, i+1, auto, got)
				}
			}
		}
	}
	for name := range formats {
		if !covered[name] && name != "auto" {
			t.Errorf("format %s has no cases in testdata/lines", name)
		}
	}
}

func described(f Reader, line []byte) string {
	var l Line
	switch err := f.Read(line, &l); {
	case errors.Is(err, ErrNotRequest):
		return "no request"
	case err != nil:
		return "bad"
	}
	r, _ := NewRoutes(nil)
	endpoint := string(l.Target)
	if !l.Whole {
		endpoint = string(r.endpoint(l.Target, true))
	}
	out := fmt.Sprintf("%s %d %s", l.At.UTC().Format("2006-01-02T15:04:05.999Z"), l.Status, endpoint)
	for role, name := range l.Who {
		if !absent(name) {
			out += fmt.Sprintf(" %s=%s", RoleNames[role], name)
		}
	}
	switch l.Answered {
	case AnsweredProxy:
		out += " by proxy"
	case AnsweredUpstream:
		out += " by upstream"
	}
	if len(l.Reason) > 0 {
		out += " reason " + string(l.Reason)
	}
	return out
}

func TestLogClock(t *testing.T) {
	var c timeReader
	for text, want := range map[string]string{
		"02/Jan/2026:15:04:05 +0000":          "2026-01-02T15:04:05Z",
		"02/Jan/2026:15:04:05 -0730":          "2026-01-02T22:34:05Z",
		"02/Jan/2026:00:04:05 +0100":          "2026-01-01T23:04:05Z",
		"02/Jan/2026:15:04:05.127":            "2026-01-02T15:04:05.127Z",
		"[02/Jan/2026:15:04:05 +0000]":        "2026-01-02T15:04:05Z",
		"2026-01-02T15:04:05Z":                "2026-01-02T15:04:05Z",
		"2026-01-02T15:04:05.123456789+02:00": "2026-01-02T13:04:05.123456789Z",
		"2026-01-02T15:04:05+0200":            "2026-01-02T13:04:05Z",
		"2026-01-02 15:04:05":                 "2026-01-02T15:04:05Z",
		"1767366245":                          "2026-01-02T15:04:05Z",
		"1767366245.5":                        "2026-01-02T15:04:05.5Z",
		"1767366245123":                       "2026-01-02T15:04:05.123Z",
		"1767366245123000000":                 "2026-01-02T15:04:05.123Z",
		"":                                    "", "-": "", "02/Jan/2026": "", "32/Jan/2026:15:04:05 +0000": "", "02/Foo/2026:15:04:05 +0000": "",
		"02/Jan/2026:25:04:05 +0000": "", "02/Jan/2026:15:04:05 Europe": "", "2026-13-02T15:04:05Z": "", "17": "", "99999999999999999999": "", "0002-01-02T15:04:05Z": "",
	} {
		for range 2 { // the second time from memory
			at, ok := c.parse([]byte(text))
			if got := at.UTC().Format(time.RFC3339Nano); ok != (want != "") || ok && got != want {
				t.Errorf("%q: got %s, %v; want %q", text, got, ok, want)
			}
		}
	}
}

func TestRoutes(t *testing.T) {
	r, err := NewRoutes([]string{"/v2/devices/{id}", "/v2/devices/{id}/*", "/static/*", "/v2/users/{name}/keys/{key}"})
	if err != nil {
		t.Fatal(err)
	}
	for target, want := range map[string]string{
		"/v2/devices/17?x=1":                                  "/v2/devices/{id}",
		"/v2/devices/abc":                                     "/v2/devices/{id}",
		"/v2/devices/abc/logs/today":                          "/v2/devices/{id}/*",
		"/v2/devices":                                         "/v2/devices",
		"/v2/devices/":                                        "/v2/devices/",
		"/static/css/main.css":                                "/static/*",
		"/v2/users/bob/keys/9":                                "/v2/users/{name}/keys/{key}",
		"/v2/users/bob":                                       "/v2/users/bob",
		"/orders/12345/items":                                 "/orders/{id}/items",
		"/orders/7f9c2ba4-e88f-11ee-951e-325096b39f47":        "/orders/{id}",
		"/u/someone@example.com":                              "/u/{id}",
		"/api/v1/oauth2/token":                                "/api/v1/oauth2/token",
		"/files/d41d8cd98f00b204e9800998ecf8427e":             "/files/{id}",
		"/dev/dev-00123":                                      "/dev/{id}",
		"https://api.example.com:443/v1/things?access_token=": "/v1/things",
		"https://api.example.com":                             "/",
		"*":                                                   "-",
		"":                                                    "-",
		"/":                                                   "/",
		"/a/b/c/d/e/f/g/h/i/j":                                "/a/b/c/d/e/f/g/h/*",
		"/login;jsessionid=1A2B":                              "/login",
	} {
		if got := string(r.endpoint([]byte(target), true)); got != want {
			t.Errorf("%q: got %q, want %q", target, got, want)
		}
	}
	for _, wrong := range []string{"v2/x", "/a*b", "/*/x", "/x{id}", "/x?y"} {
		if _, err := NewRoutes([]string{wrong}); err == nil {
			t.Errorf("pattern %q is taken", wrong)
		}
	}
}

func TestRoutes_cardinalityIsBounded(t *testing.T) {
	r, err := NewRoutes(nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i := range 200_000 {
		word := fmt.Sprintf("%c%c%c", 'a'+i%26, 'a'+i/26%26, 'a'+i/676%26)
		seen[string(r.endpoint(fmt.Appendf(nil, "/%s/%s/%s", word, word[1:], word[2:]), true))] = true
	}
	if len(seen) > 5000 || r.nodes > 2*maxNodes {
		t.Errorf("%d endpoints, %d nodes", len(seen), r.nodes)
	}
}

func TestReaders_doNotAllocate(t *testing.T) {
	for format, text := range map[string]string{
		"combined": `203.0.113.9 - alice [02/Jan/2026:15:04:05 +0000] "GET /v2/devices/17?x=1 HTTP/1.1" 401 12 "-" "curl/8.0"`,
		"json":     `{"time_iso8601":"2026-01-02T15:04:05+00:00","remote_addr":"203.0.113.9","request":"GET /v2/devices/17?x=\"1 HTTP/1.1","status":"401","upstream_status":"401"}`,
		"logfmt":   `time=2026-01-02T15:04:05Z client=203.0.113.9 path=/v2/devices/17?x=1 status=401`,
		"haproxy":  `203.0.113.9:1024 [12/Mar/2026:06:56:28.088] fe~ api/s1 0/0/1/2/3 401 188 - - ---- 19/19/3/4/0 0/0 "GET /v2/devices/17 HTTP/1.1"`,
		"csv":      `1767366245.5,401,/v2/devices/{id},c1`,
	} {
		f, err := New(format, Options{})
		if err != nil {
			t.Fatal(err)
		}
		r, _ := NewRoutes(nil)
		line := []byte(text)
		var l Line
		if n := testing.AllocsPerRun(1000, func() {
			l = Line{}
			if f.Read(line, &l) != nil || !bytes.Equal(r.Endpoint(&l), []byte("/v2/devices/{id}")) {
				t.Fatal(format, "not read")
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations for a line, want none", format, n)
		}
	}
}

func TestNewLogReader_saysWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		format string
		o      Options
		want   string
	}{
		{"apache", Options{}, "unknown format"},
		{"log_format", Options{}, "log_format is missing"},
		{"log_format", Options{LogFormat: "$remote_addr $status"}, "lacks the time"},
		{"log_format", Options{LogFormat: "$status$request [$time_local]"}, "nothing stands between"},
		{"combined", Options{LogFormat: "$status"}, `write format = "log_format"`},
		{"json", Options{Fields: map[string]string{"usr": "x"}}, `"usr" is none of`},
		{"syslog", Options{Inner: "docker"}, "no format that can stand in an envelope"},
	} {
		if _, err := New(c.format, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %+v: got %v, want %q", c.format, c.o, err, c.want)
		}
	}
}

func FuzzLogFormats(f *testing.F) {
	files, _ := filepath.Glob("testdata/lines/*.txt")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for line := range bytes.Lines(text) {
			f.Add(bytes.TrimRight(line, "\n"))
		}
	}
	var readers []Reader
	for _, name := range Names() {
		o := Options{}
		if name == "log_format" {
			o.LogFormat = `$remote_addr - $remote_user [$time_local] "$request" $status "$http_user_agent" $upstream_status`
		}
		reader, err := New(name, o)
		if err != nil {
			f.Fatal(err)
		}
		readers = append(readers, reader)
	}
	r, _ := NewRoutes([]string{"/v2/{id}/*"})
	f.Fuzz(func(t *testing.T, line []byte) {
		for _, reader := range readers {
			var l Line
			if reader.Read(line, &l) != nil {
				continue
			}
			if l.Status < 100 || l.Status > 999 || l.At.Year() < 1990 || l.At.Year() > 2100 {
				t.Errorf("%T reads %q as %+v", reader, line, l)
			}
			if e := r.endpoint(l.Target, true); len(e) > MaxEndpoint+8 {
				t.Errorf("endpoint of %d bytes", len(e))
			}
		}
	})
}
