package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/authvigil/authvigil/probes/sandbox"
)

// commandsOf are all commands that do something, those of groups included.
func commandsOf(c *cobra.Command) (list []*cobra.Command) {
	for _, one := range c.Commands() {
		if one.Name() == "help" || strings.Contains(one.CommandPath(), " completion") {
			continue // cobra's own
		}
		if one.HasSubCommands() {
			list = append(list, commandsOf(one)...)
			continue
		}
		list = append(list, one)
	}
	return list
}

// TestHelp_examplesWork types every example of every --help. Names of servers and files are those of a sandbox; what does not
// end by itself is ended. An example may find a problem (1), but must not be wrong usage.
func TestHelp_examplesWork(t *testing.T) {
	world := sandbox.New()
	defer world.Close()
	if err := world.Listen(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Setenv("PASS", "secret")
	t.Setenv("RUNTIME_DIRECTORY", dir)
	hook := httptest.NewServer(http.NotFoundHandler())
	defer hook.Close()
	api := "https://" + world.Address(sandbox.APIHost+":443")
	files := map[string]string{
		"authvigil.toml": "[probe.devices]\nkind = \"http\"\nurl = \"" + api + "/v2/devices\"\nca_file = \"" + dir + "/ca.pem\"\n[sink.pager]\nkind = \"webhook\"\nurl = \"" + hook.URL + "\"\n",
		"ca.pem":         string(world.RootsPEM()), "token": "opaque-0123456789", "cases.jsonl": `{"id":"a","response":{"status":429}}` + "\n",
		"combined.log": asCombined(firstLine, 1, 200), "access.log": "10.0.0.1 [05/Jan/2026:00:00:00 +0000] \"GET /v2/devices HTTP/1.1\" 200\n", "traffic.csv.gz": string(zipped([]byte("ts,status,endpoint,client\n" + asCSV(firstLine, 1, 200)))),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p12, err := os.ReadFile("testdata/expired.p12")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "site.p12"), p12, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	config := filepath.Join(dir, "here.toml") // init writes authvigil.toml anew
	if err := os.WriteFile(config, []byte(files["authvigil.toml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	here := strings.NewReplacer("https://api.example.com/v2/devices", api+"/v2/devices", "https://auth.example.com", "https://"+world.Address(sandbox.AuthHost+":443"), "api.example.com:443", world.Address(sandbox.APIHost+":443"),
		"ntp1.example.com", world.Address(sandbox.NTPHost1+":123"), "ntp2.example.com", world.Address(sandbox.NTPHost2+":123"), "ntp3.example.com", world.Address(sandbox.NTPHost3+":123"),
		"/etc/authvigil/authvigil.toml", config, "/etc/authvigil/", dir+"/", "/var/log/nginx/access.log*", "combined.log", "/usr/local/share/man/man1", dir+"/man1", " > authvigil.schema.json", "")
	stdin := map[string]string{"curl": "HTTP/1.1 429 Too Many Requests\n\n", "pbpaste": "opaque-0123456789"}
	seen := 0
	for _, c := range commandsOf((&app{}).root()) {
		for line := range strings.Lines(c.Example) {
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			seen++
			typed := ""
			if before, after, piped := strings.Cut(line, " | "); piped {
				program, _, _ := strings.Cut(before, " ")
				typed, line = stdin[program], after
			}
			args := words(here.Replace(line))[1:]
			switch c.Name() {
			case "init":
				args = append(args, "--ca-file", dir+"/ca.pem", "--force")
			case "run", "demo":
				args = append(args, "--web.listen-address", "127.0.0.1:0")
			}
			if !strings.Contains(line, "--config.file") {
				args = append(args, "--config.file", config)
			}
			worst := exitFound
			if c.Name() == "status" || c.Name() == "top" || c.Name() == "check" {
				worst = exitUsage // no daemon runs; the plugin says CRITICAL
			}
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			var out, errs bytes.Buffer
			code := execute(ctx, args, strings.NewReader(typed), &out, &errs, nil)
			cancel()
			if code > worst || strings.Contains(errs.String(), "unknown flag") {
				t.Errorf("%s: exit %d\n%s%s", line, code, out.String(), errs.String())
			}
		}
	}
	if seen < 25 {
		t.Errorf("%d examples were found", seen)
	}
}

// words parts a line as a shell does, with single quotes and escaped double ones.
func words(line string) (list []string) {
	word, quoted, open := "", false, false
	for _, r := range line {
		switch {
		case r == '\'':
			quoted, open = !quoted, true
		case r == ' ' && !quoted:
			if word != "" || open {
				list = append(list, word)
			}
			word, open = "", false
		default:
			word += string(r)
		}
	}
	if word != "" || open {
		list = append(list, word)
	}
	return list
}

// TestStories_everyCommandHasOne: each command is played in a story, and its name stands there with an exit code.
func TestStories_everyCommandHasOne(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	for _, c := range commandsOf((&app{}).root()) {
		if c.Example == "" {
			t.Errorf("%s --help has no example", c.CommandPath())
		}
		if !strings.Contains(all.String(), " "+c.CommandPath()+" ") && !strings.Contains(all.String(), " "+c.CommandPath()+"\n") {
			t.Errorf("no story plays %s", c.CommandPath())
		}
	}
}
