package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
)

// commanding holds what makes a terminal do something: escape sequences in both forms, a bell, backspaces, text that runs
// backwards, a line that ends and one that is overwritten.
const commanding = "\x1b]0;owned\x07\x1b[2J\x1b[31m\u009b31mred\b\b\b\u202egnp.exe\u2066x\u200f\r\nlevel=ERROR msg=forged"

// TestCommands_writeNoControlCharacters: what strangers say reaches a terminal without any character that commands it.
func TestCommands_writeNoControlCharacters(t *testing.T) {
	hostile := strings.NewReplacer("\r", "", "\n", "", "\x07", "", "\b", "", "\x1b", "").Replace(commanding)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+hostile+`", error="invalid_token", error_description="`+hostile+`"`)
		w.Header().Set("X-Error", hostile)
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, commanding)
	}))
	defer server.Close()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	config := file("authvigil.toml", fmt.Sprintf("[probe.p]\nkind = \"http\"\nurl = %q\n", server.URL+"/%1b%5b2J"))
	response := file("response", "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer error=\"invalid_token\", error_description=\""+hostile+"\"\r\nX-Error: \x1b[2J\r\n\r\n"+commanding)
	evidence := file("evidence", `{"id":"a\u001b[2J\u202e","status":401,"body":"\u001b]0;owned\u0007 token expired \u202e"}`+"\n")
	broken := file("broken.toml", "[probe.p]\nkind = \"htt\x1b[2Jp\"\n[probe.\"\\u001b[2J\"]\nkind = \"\\u202eptth\"\nurl = \"\\u001b[2J\"\n")
	token := file("token", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJcdTAwMWJbMkpcdTIwMmUiLCJpc3MiOiJcdTAwMWJdMDtvd25lZFx1MDAwNyJ9.")
	log := ""
	for i := range 200 {
		log += fmt.Sprintf("192.0.2.%d - - [02/Jan/2026:03:04:%02d +0000] \"GET /\x1b[2J\u202e/%d HTTP/1.1\" 401 1 \"-\" \"\x1b]0;owned\x07\"\n", i%200, i%60, i%3)
	}
	access := file("access.log", log)
	for _, args := range [][]string{
		{"once", "--config.file", config}, {"once", "--output", "json", "--config.file", config}, {"once", "--output", "ndjson", "--config.file", config},
		{"check", "p", "--config.file", config}, {"diagnose", "p", "--config.file", config}, {"diagnose", server.URL},
		{"diagnose", "--response", response}, {"diagnose", "--evidence", evidence}, {"diagnose", "--evidence", evidence, "--output", "ndjson"},
		{"config", "check", "--config.file", broken}, {"config", "show", "--config.file", config}, {"inspect", "token", token}, {"inspect", "cert", response},
		{"replay", "--format", "combined", access}, {"replay", "--format", "combined", "--output", "ndjson", access},
		{"explain", "\x1b[2J\u202e"}, {"once", "\x1b[2J\u202e", "--config.file", config}, {"check", "\x1b[2J", "--config.file", config},
	} {
		_, out, errs := call(t, "", append(args, "--color", "never")...)
		for where, text := range map[string]string{"output": out, "error": errs} {
			for i, r := range text {
				if r == '\n' || r == '\t' || !unicode.In(r, unicode.Cc, unicode.Bidi_Control) && r != '\u2028' && r != '\u2029' {
					continue
				}
				t.Errorf("%q writes %q to its %s: …%q", args, r, where, text[max(i-60, 0):min(i+20, len(text))])
				break
			}
		}
	}
}
