package probes

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent/spike"
	"github.com/authvigil/authvigil/probes/logline"
)

// LogSettings says how lines of access logs are read, and who and where they are about.
type LogSettings struct {
	Format    string            `koanf:"format" help:"format of the lines: auto, combined, common, json, log_format, alb, iis, w3c, logfmt, haproxy, envoy, csv, syslog or docker (one of the others in an envelope); default auto"`
	LogFormat string            `koanf:"log_format" help:"for format log_format: the format string as nginx (log_format) or Apache (LogFormat) has it"`
	Inner     string            `koanf:"inner" help:"for syslog and docker: the format inside; default auto"`
	Fields    map[string]string `koanf:"fields" help:"names of fields where they differ from what servers call them: time, status, path, request, subject, client_id, user, key, address, reason, upstream_status"`
	Client    []string          `koanf:"client" help:"what tells clients apart, the first that a line has: subject, client_id, user, key, address; default all in this order; [] with format csv or counters means that clients are not told apart"`
	Clients   string            `koanf:"clients" help:"how clients are named in alerts: hashed (with a key of this installation) or clear; default hashed"`
	Routes    []string          `koanf:"routes" help:"patterns that make endpoints of paths, such as /v2/devices/{id} or /static/*; where none fits, segments that name objects are recognised"`
}

// A LogFeed reads lines of access logs and gives them to a detector of spikes. It is not safe for concurrent use.
type LogFeed struct {
	settings LogSettings
	who      []int // roles, in the order of preference
	routes   *logline.Routes
	detector *spike.Detector

	Counts  LogCounts
	Seen    func(at time.Time, status int) // called for each request, when it is set
	newest  time.Time                      // time of the newest line
	sample  []byte                         // of the last line that was not understood, without what it says
	refused map[string]*[2]int             // by endpoint: 401, 403
}

// LogCounts says what became of lines.
type LogCounts struct {
	Requests int // understood
	Ignored  int // comments, headers, requests without an answer
	Bad      int // not understood, or too long
	Status   [1000]int
}

// maxRefusals is how many endpoints are counted by themselves.
const maxRefusals = 2048

// NewLogFeed makes a feed with a detector that knows nothing yet. key is the key that clients are hashed with; it must stay
// the same for a state to be used again.
func NewLogFeed(s LogSettings, key []byte) (*LogFeed, error) {
	f := &LogFeed{settings: s, refused: map[string]*[2]int{}}
	var errs []error
	if _, err := f.newReader(); err != nil {
		errs = append(errs, fmt.Errorf("format: %w", err))
	}
	for _, name := range s.Client {
		role := slices.Index(logline.RoleNames[:], name)
		if role < 0 {
			errs = append(errs, fmt.Errorf("client: %q is none of %s", name, strings.Join(logline.RoleNames[:], ", ")))
		}
		f.who = append(f.who, role)
	}
	if s.Client == nil {
		for role := range logline.RoleNames {
			f.who = append(f.who, role)
		}
	}
	switch s.Clients {
	case "", "hashed", "clear":
	default:
		errs = append(errs, fmt.Errorf("clients: %q is neither hashed nor clear", s.Clients))
	}
	var err error
	if f.routes, err = logline.NewRoutes(s.Routes); err != nil {
		errs = append(errs, err)
	}
	f.detector = spike.New(f.policy(key))
	return f, errors.Join(errs...)
}

func (f *LogFeed) newReader() (logline.Reader, error) {
	format := f.settings.Format
	if format == "" {
		format = "auto"
	}
	return logline.New(format, logline.Options{LogFormat: f.settings.LogFormat, Fields: f.settings.Fields, Inner: f.settings.Inner})
}

// policy names clients by a keyed hash, so that alerts do not carry who they are, unless that was asked for.
func (f *LogFeed) policy(key []byte) spike.Policy {
	seed := hmac.New(sha256.New, key)
	seed.Write([]byte("seed"))
	p := spike.Policy{Seed: binary.LittleEndian.Uint64(seed.Sum(nil))}
	if f.settings.Clients != "clear" {
		mac := hmac.New(sha256.New, key)
		p.Name = func(hash uint64) string {
			mac.Reset()
			mac.Write(binary.LittleEndian.AppendUint64(nil, hash))
			return hex.EncodeToString(mac.Sum(nil)[:5])
		}
	}
	return p
}

// Detector is what the feed feeds.
func (f *LogFeed) Detector() *spike.Detector { return f.detector }

// add gives a line to the detector. A quiet line was counted before, by a process that is gone.
func (f *LogFeed) add(l *logline.Line, quiet bool) {
	endpoint := f.routes.Endpoint(l)
	f.detector.Add(spike.Request{At: l.At, Status: l.Status, Endpoint: endpoint, Client: l.Client(f.who), Reason: l.Reason, ByProxy: l.Answered == logline.AnsweredProxy})
	if l.At.After(f.newest) {
		f.newest = l.At
	}
	if quiet {
		return
	}
	f.Counts.Requests++
	f.Counts.Status[l.Status]++
	if f.Seen != nil {
		f.Seen(l.At, l.Status)
	}
	if l.Status == 401 || l.Status == 403 {
		f.refuse(endpoint, l.Status)
	}
}

func (f *LogFeed) refuse(endpoint []byte, status int) {
	n := f.refused[string(endpoint)]
	if n == nil {
		if len(f.refused) >= maxRefusals {
			endpoint = []byte(spike.Other)
		}
		if n = f.refused[string(endpoint)]; n == nil {
			n = new([2]int)
			f.refused[string(endpoint)] = n
		}
	}
	if status == 401 {
		n[0]++
	} else {
		n[1]++
	}
}

// bad counts a line that was not understood, and keeps what it looked like: letters as a, digits as 9, so that neither
// names nor tokens of the log go into our own.
func (f *LogFeed) bad(line []byte) {
	f.Counts.Bad++
	f.sample = f.sample[:0]
	for _, c := range line[:min(len(line), 100)] {
		switch {
		case c >= '0' && c <= '9':
			c = '9'
		case c >= 'a' && c <= 'z':
			c = 'a'
		case c >= 'A' && c <= 'Z':
			c = 'A'
		case c < ' ' || c > '~':
			c = '?'
		}
		f.sample = append(f.sample, c)
	}
}

// Sample is the shape of the last line that was not understood.
func (f *LogFeed) Sample() string { return string(f.sample) }
