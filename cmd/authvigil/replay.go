package main

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/authvigil/authvigil/agent/spike"
	"github.com/authvigil/authvigil/exporters"
	"github.com/authvigil/authvigil/probes"
)

// A replay is one log through the detector of spikes, in the log's own time.
type replay struct {
	*app
	settings probes.LogSettings
	alerts   string // file that alerts are written to
	explain  bool

	feed   *probes.LogFeed
	chart  chart
	list   []spike.Alert // as they stand at the end, in the order in which they began
	files  []io.Closer
	writer func(alertRecord) error
}

func replayCommand(a *app) *cobra.Command {
	r := &replay{app: a}
	c := &cobra.Command{
		Use: "replay FILE…", Short: "Send access logs through the detector of spikes, in the log's own time",
		Long: "Reads access logs, plain or gzip, - for standard input; several are merged by time. What would have been told is shown as a\n" +
			"summary (text), as one object (json), or as alerts just as Alertmanager would have got them (ndjson).",
		Example: "  authvigil replay /var/log/nginx/access.log*\n  authvigil replay --format csv --output ndjson traffic.csv.gz\n  authvigil replay --format log_format --log-format '$remote_addr [$time_local] \"$request\" $status' access.log",
		Args:    cobra.MinimumNArgs(1),
		RunE:    func(_ *cobra.Command, names []string) error { return r.run(names) },
	}
	f := c.Flags()
	f.StringVar(&r.settings.Format, "format", "auto", "format of the lines: alb, auto, combined, common, csv, docker, envoy, haproxy, iis, json, log_format, logfmt, syslog or w3c")
	f.StringVar(&r.settings.LogFormat, "log-format", "", "for format log_format: the format `string` as nginx or Apache has it")
	f.StringVar(&r.settings.Inner, "inner", "", "for formats syslog and docker: the `format` inside; default auto")
	f.StringToStringVar(&r.settings.Fields, "field", nil, "name of a field where it is not the usual one, such as `status=result.code`")
	f.StringSliceVar(&r.settings.Client, "client", nil, "what tells clients apart, the first that a line has: subject, client_id, user, key, address; default all in this order")
	f.StringVar(&r.settings.Clients, "clients", "clear", "how clients are named: clear or hashed")
	f.StringSliceVar(&r.settings.Routes, "route", nil, "`pattern` that makes an endpoint of paths, such as /v2/devices/{id}")
	f.StringVar(&r.alerts, "alerts", "", "write the alerts to this `file` too, one JSON object per line")
	f.BoolVar(&r.explain, "explain-alert", false, "say of each alert what it rests on")
	return c
}

func (r *replay) run(names []string) (err error) {
	if err := r.checkOutput(); err != nil {
		return err
	}
	if r.feed, err = probes.NewLogFeed(r.settings, []byte("replay")); err != nil {
		return exit{exitUsage, err}
	}
	defer func() {
		for _, f := range r.files {
			f.Close()
		}
	}()
	var readers []io.Reader
	for _, name := range names {
		reader, err := r.open(name)
		if err != nil {
			return exit{exitUsage, err}
		}
		readers = append(readers, reader)
	}
	done, err := r.prepare()
	if err != nil {
		return exit{exitUsage, err}
	}
	r.feed.Seen = r.chart.add
	var wrong error
	err = r.feed.Replay(readers, func() {
		for _, a := range r.feed.Detector().Changes() {
			wrong = errors.Join(wrong, r.tell(a))
		}
	})
	if err = errors.Join(err, wrong, done()); err != nil {
		return exit{exitFound, err}
	}
	if r.feed.Counts.Requests == 0 {
		return exit{exitUsage, r.nothing()}
	}
	switch r.output {
	case "json":
		return r.object()
	case "text":
		return r.summary(r.stdout)
	}
	return nil
}

// open opens a log, whatever it is compressed with.
func (r *replay) open(name string) (io.Reader, error) {
	var from io.Reader = r.stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		r.files = append(r.files, file)
		if info, err := file.Stat(); err == nil && info.IsDir() {
			return nil, fmt.Errorf("%s is a directory; name the files in it", name)
		}
		from = file
	}
	b := bufio.NewReaderSize(from, 64<<10)
	if magic, _ := b.Peek(2); len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return z, nil
	}
	return b, nil
}

// prepare opens what alerts are written to, and gives what has to be done at the end.
func (r *replay) prepare() (done func() error, err error) {
	var writers []io.Writer
	done = func() error { return nil }
	if r.output == "ndjson" {
		writers = append(writers, r.stdout)
	}
	if r.alerts != "" {
		file, err := os.Create(r.alerts)
		if err != nil {
			return nil, err
		}
		writers = append(writers, file)
		done = file.Close
	}
	to := json.NewEncoder(io.MultiWriter(writers...))
	to.SetEscapeHTML(false)
	r.writer = func(a alertRecord) error {
		if len(writers) == 0 {
			return nil
		}
		return to.Encode(a)
	}
	return done, nil
}

func (r *replay) nothing() error {
	c := &r.feed.Counts
	if c.Bad == 0 {
		return errors.New("the log holds no requests")
	}
	return fmt.Errorf("no line is of format %s; the last of %d looks like %q (a for letters, 9 for digits)\n  help: give --format, or --log-format with the format string of your server", r.settings.Format, c.Bad, r.feed.Sample())
}

// tell notes an alert that began or ended, and writes it down.
func (r *replay) tell(a spike.Alert) error {
	if a.Ended.IsZero() {
		r.list = append(r.list, a)
	} else {
		for i := len(r.list) - 1; i >= 0; i-- {
			b := &r.list[i]
			if b.Name == a.Name && b.Severity == a.Severity && b.Endpoint == a.Endpoint && b.Client == a.Client && b.Started.Equal(a.Started) {
				*b = a
				break
			}
		}
	}
	return r.writer(recordOf(a, r.explain))
}

// An alertRecord is an alert as it is posted to Alertmanager's /api/v2/alerts.
type alertRecord struct {
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	StartsAt    time.Time         `json:"startsAt"`
	EndsAt      time.Time         `json:"endsAt"`
	Because     []string          `json:"because,omitempty"` // with --explain-alert
}

// believed is how long a receiver would take an alert for firing that is not sent again: four times the period of sending.
const believed = 4 * time.Minute

func recordOf(a spike.Alert, explain bool) alertRecord {
	x := alertRecord{Labels: map[string]string{"alertname": a.Name, "severity": a.Severity, "endpoint": a.Endpoint}, Annotations: map[string]string{}, StartsAt: a.Started, EndsAt: a.Started.Add(believed)}
	if !a.Ended.IsZero() {
		x.EndsAt = a.Ended
		x.Annotations["ended"] = a.How
	}
	if a.Client != "" {
		x.Labels["client"] = a.Client
	}
	note := func(name, value string) {
		if value != "" {
			x.Annotations[name] = value
		}
	}
	note("summary", summaries[a.Name])
	note("description", a.Description)
	note("onset", a.Onset.Format(time.RFC3339))
	note("pattern", a.Pattern)
	note("clients", a.Clients)
	note("endpoints", a.Endpoints)
	note("refused", strconv.Itoa(a.Refused))
	note("requests", strconv.Itoa(a.Requests))
	note("baseline", strconv.FormatFloat(a.Baseline, 'g', 3, 64))
	note("reason", a.Reason)
	note("refused_by", a.Issuer)
	note("runbook_url", runbookPath+a.Name)
	if explain {
		x.Because = a.Because
	}
	return x
}

// runbookPath is where the daemon serves the runbooks.
const runbookPath = "/runbooks/"

// summaries are the constant sentences of the alerts.
var summaries = map[string]string{
	spike.AuthFailureSpike:   "Clients that had success before are refused unusually often.",
	spike.AuthFailureClients: "Clients that never had success are refused unusually often: guessing, scanning, or lists of passwords.",
	spike.ClientAuthFailing:  "A client that had success before is refused all the time: its credential is probably dead.",
	spike.TrafficAbsent:      "Far fewer requests come than at this hour of the week.",
}

// object writes one object with everything.
func (r *replay) object() error {
	c := &r.feed.Counts
	records := make([]alertRecord, 0, len(r.list))
	for _, a := range r.list {
		records = append(records, recordOf(a, r.explain))
	}
	return writeJSON(r.stdout, map[string]any{
		"schema_version": exporters.SchemaVersion, "from": r.chart.from, "to": r.chart.to, "requests": c.Requests, "refused": c.Status[401], "forbidden": c.Status[403],
		"ignored_lines": c.Ignored, "bad_lines": c.Bad, "endpoints": r.feed.Detector().Stats().Endpoints, "alerts": records,
	})
}
