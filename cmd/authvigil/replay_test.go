package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// replayed runs a command line and gives its exit code and what it said.
func replayed(t *testing.T, stdin []byte, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = execute(t.Context(), append([]string{"replay"}, args...), bytes.NewReader(stdin), &out, &errs, nil)
	return code, out.String(), errs.String()
}

var firstLine = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)

// trafficLog is a day and a half of a small API, with an outage of 20 minutes near the end.
func trafficLog(line func(at time.Time, client, status int) string) []byte {
	var b bytes.Buffer
	from := firstLine.Add(33 * time.Hour)
	for i := range 36 * 1800 {
		at := firstLine.Add(time.Duration(i) * 2 * time.Second)
		status := 200
		if at.After(from) && at.Before(from.Add(20*time.Minute)) {
			status = 401
		}
		b.WriteString(line(at, i*7%30, status))
	}
	return b.Bytes()
}

func asCombined(at time.Time, client, status int) string {
	return fmt.Sprintf("10.0.0.1 - c%d [%s] \"GET /v2/devices/%d HTTP/1.1\" %d 12 \"-\" \"-\"\n", client, at.Format("02/Jan/2006:15:04:05 -0700"), at.Unix(), status)
}

func asCSV(at time.Time, client, status int) string {
	return fmt.Sprintf("%d.5,%d,/v2/devices/{id},c%d\n", at.Unix(), status, client)
}

func zipped(b []byte) []byte {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	w.Write(b)
	w.Close()
	return z.Bytes()
}

func records(t *testing.T, text string) (list []alertRecord) {
	t.Helper()
	for line := range strings.Lines(text) {
		var a alertRecord
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		list = append(list, a)
	}
	return list
}

// page picks the beginning and the end of the one page there must be.
func page(t *testing.T, list []alertRecord) (begin, end alertRecord) {
	t.Helper()
	var pages []alertRecord
	for _, a := range list {
		if a.Labels["severity"] == "critical" {
			pages = append(pages, a)
		}
	}
	if len(pages) != 2 {
		t.Fatalf("%d records of pages, want a beginning and an end: %+v", len(pages), list)
	}
	return pages[0], pages[1]
}

func TestReplay_ndjsonIsWhatAlertmanagerWouldGet(t *testing.T) {
	dir := t.TempDir()
	whole := trafficLog(asCombined)
	half := bytes.IndexByte(whole[len(whole)/2:], '\n') + len(whole)/2 + 1
	older, newer, csv := filepath.Join(dir, "access.log.1.gz"), filepath.Join(dir, "access.log"), filepath.Join(dir, "traffic.csv")
	for name, b := range map[string][]byte{older: zipped(whole[:half]), newer: whole[half:], csv: append([]byte("ts,status,endpoint,client\n"), trafficLog(asCSV)...)} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{newer, older}, {"--format", "combined", older, newer}, {"--format", "csv", csv}, {csv}} {
		code, out, errs := replayed(t, nil, append(args, "--output", "ndjson")...)
		if code != exitOK || errs != "" {
			t.Fatalf("%v: exit %d, %s", args, code, errs)
		}
		a, z := page(t, records(t, out))
		outage := firstLine.Add(33 * time.Hour)
		if d := a.StartsAt.Sub(outage); d < 0 || d > 4*time.Minute {
			t.Errorf("%v: the page began %v after the outage", args, d)
		}
		if a.Labels["alertname"] != "AuthFailureSpike" || a.Labels["endpoint"] != "/v2/devices/{id}" || a.Annotations["pattern"] != "one_endpoint" || !strings.Contains(a.Annotations["clients"], " %)") {
			t.Errorf("%v: got %+v", args, a)
		}
		for _, note := range []string{"summary", "description", "onset", "refused", "requests", "baseline", "runbook_url"} {
			if a.Annotations[note] == "" {
				t.Errorf("%v: annotation %s is missing", args, note)
			}
		}
		if d := z.EndsAt.Sub(outage); d < 20*time.Minute || d > 32*time.Minute || !z.StartsAt.Equal(a.StartsAt) || z.Annotations["ended"] != "recovered" {
			t.Errorf("%v: the end is %+v", args, z)
		}
	}
}

func TestReplay_textJSONAndAlertsFile(t *testing.T) {
	log := trafficLog(asCombined)
	alerts := filepath.Join(t.TempDir(), "alerts.jsonl")
	code, out, errs := replayed(t, zipped(log), "-", "--alerts", alerts, "--explain-alert", "--route", "/v2/devices/*")
	if code != exitOK {
		t.Fatalf("exit %d: %s", code, errs)
	}
	for _, want := range []string{"64800 requests, 599 refused", "requests █", "refused ", "critical AuthFailureSpike   /v2/devices/*", "recovered", "stream B", "needed 8", "2 alerts, 1 of them critical"} {
		if !strings.Contains(out, want) {
			t.Errorf("the summary lacks %q:\n%s", want, out)
		}
	}
	written, err := os.ReadFile(alerts)
	if err != nil {
		t.Fatal(err)
	}
	if a, _ := page(t, records(t, string(written))); len(a.Because) == 0 {
		t.Error("--explain-alert says nothing in the file of alerts")
	}
	code, out, _ = replayed(t, log, "-", "--output", "json", "--clients", "hashed")
	var object struct {
		SchemaVersion int `json:"schema_version"`
		Requests      int
		Alerts        []alertRecord
	}
	if err := json.Unmarshal([]byte(out), &object); err != nil || code != exitOK || object.SchemaVersion == 0 || object.Requests != 64800 || len(object.Alerts) != 2 {
		t.Errorf("exit %d, %v: %+v", code, err, object)
	}
	if strings.Contains(out, "c7 (") {
		t.Error("clients are named in clear")
	}
}

func TestReplay_saysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		stdin string
		args  []string
		want  string
	}{
		{"", []string{"-"}, "holds no requests"},
		{"hello Bob\nhello 42\n", []string{"-"}, `looks like "aaaaa 99"`},
		{"", []string{filepath.Join(dir, "none")}, "no such file"},
		{"", []string{dir}, "is a directory"},
		{"", []string{"--format", "apache", "-"}, "unknown format"},
		{"", []string{"--output", "xml", "-"}, "--output"},
		{"", []string{"--alerts", filepath.Join(dir, "no", "file"), "-"}, "no such file"},
		{"", nil, "at least 1 arg"},
	} {
		if code, _, errs := replayed(t, []byte(c.stdin), c.args...); code != exitUsage || !strings.Contains(errs, c.want) {
			t.Errorf("%v: exit %d, %q; want exit 2 and %q", c.args, code, errs, c.want)
		}
	}
	cut := zipped(trafficLog(asCSV))
	if code, _, errs := replayed(t, cut[:len(cut)/2], "-"); code != exitFound || !strings.Contains(errs, "unexpected EOF") {
		t.Errorf("a gzip that is cut short: exit %d, %q", code, errs)
	}
	short := trafficLog(asCSV)[:2000]
	if _, out, _ := replayed(t, short, "-"); !strings.Contains(out, "too short") {
		t.Errorf("a short log: %s", out)
	}
}

func TestChart_growsWithTheLog(t *testing.T) {
	var c chart
	for i := range 100_000 {
		status := 200
		if i > 90_000 {
			status = 401
		}
		c.add(firstLine.Add(time.Duration(i)*time.Minute), status)
	}
	c.add(firstLine.Add(-time.Hour), 200) // late
	sum := 0
	for _, x := range c.columns {
		sum += x.requests
	}
	row, most := c.row(func(x chartColumn) int { return x.refused })
	if sum != 100_001 || len(c.columns) > 2*chartWidth || most == 0 || !strings.HasSuffix(strings.TrimRight(row, " "), "█") && !strings.Contains(row, "█") {
		t.Errorf("%d requests in %d columns; row %q", sum, len(c.columns), row)
	}
}
