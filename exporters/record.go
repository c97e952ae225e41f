// Package exporters holds the surfaces that are read: metrics, the records of runs, and the page. They copy what the agent
// tells them and cannot fail the line.
package exporters

import (
	"time"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/agent/diagnose"
	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
)

// A Record is one run as machines read it: `once --output ndjson` and /api/v1/probes. Nothing secret can occur in it.
type Record struct {
	Probe     string            `json:"probe"`
	Kind      string            `json:"kind"`
	Endpoint  string            `json:"endpoint"`
	Identity  string            `json:"identity,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	OK        bool              `json:"ok"`
	Outcome   agent.Outcome     `json:"outcome"`
	Held      bool              `json:"held,omitempty"` // a gate keeps it from asking; what stands here is of the last run that asked
	Started   time.Time         `json:"started"`
	Took      float64           `json:"took_seconds"`
	Stage     string            `json:"stage,omitempty"`
	Symptom   string            `json:"symptom,omitempty"`
	Code      string            `json:"code,omitempty"`
	Error     string            `json:"error,omitempty"`
	Exchanges []ExchangeRecord  `json:"exchanges"`
	Readings  []ReadingRecord   `json:"readings"`
	Findings  []FindingRecord   `json:"findings"`
	Gate      GateRecord        `json:"gate"`
	LastOK    *time.Time        `json:"last_ok,omitempty"`
	Failing   *time.Time        `json:"failing_since,omitempty"`
	InARow    int               `json:"failing_in_a_row,omitempty"`
	Next      *time.Time        `json:"next,omitempty"`
}

// An ExchangeRecord is one request and its answer.
type ExchangeRecord struct {
	Stage   string             `json:"stage"`
	Purpose string             `json:"purpose,omitempty"`
	Method  string             `json:"method"`
	URL     string             `json:"url"`
	Status  int                `json:"status,omitempty"`
	Error   string             `json:"error,omitempty"`
	Took    float64            `json:"took_seconds"`
	Timing  map[string]float64 `json:"timing_seconds,omitempty"`
	Header  map[string]string  `json:"header,omitempty"`
	Body    string             `json:"body,omitempty"`
}

// A ReadingRecord is one number; subject tells several of the same name apart.
type ReadingRecord struct {
	Name    string  `json:"name"`
	Subject string  `json:"subject"`
	Value   float64 `json:"value"`
}

// A FindingRecord is one finding with the name of its runbook.
type FindingRecord struct {
	diagnose.Finding
	Runbook string `json:"runbook"`
}

// A GateRecord is the gate of the endpoint.
type GateRecord struct {
	State string     `json:"state"`
	Again *time.Time `json:"again,omitempty"`
}

// NewRecord makes a record of an event.
func NewRecord(ev agent.Event) Record {
	r := Record{Probe: ev.Probe, Kind: ev.Kind, Endpoint: ev.About.Origin, Identity: ev.About.Identity, Labels: ev.Labels, Outcome: ev.Outcome(), OK: ev.Fault == nil,
		Started: ev.Started.UTC(), Took: ev.Took.Seconds(), Exchanges: []ExchangeRecord{}, Readings: []ReadingRecord{}, Findings: []FindingRecord{},
		Gate: GateRecord{State: string(ev.Gate.Position), Again: moment(ev.Gate.Again)}, LastOK: moment(ev.LastOK), Failing: moment(ev.Failing), InARow: ev.InARow, Next: moment(ev.Next)}
	r.Endpoint = ev.About.Endpoint
	if n := len(ev.Report.Exchanges); n > 0 && ev.Report.Exchanges[n-1].Stage == evidence.StageAPI {
		r.Endpoint = ev.Report.Exchanges[n-1].URL
	}
	if f := ev.Fault; f != nil {
		r.Stage, r.Symptom, r.Code, r.Error = string(f.Stage), string(f.Symptom), f.Code, Show(f.Error())
	}
	for i := range ev.Report.Exchanges {
		r.Exchanges = append(r.Exchanges, exchangeRecord(&ev.Report.Exchanges[i]))
	}
	for i := range ev.Report.Readings {
		rd := &ev.Report.Readings[i]
		subject := ""
		for j, l := range rd.Labels {
			if j > 0 {
				subject += ","
			}
			subject += l
		}
		r.Readings = append(r.Readings, ReadingRecord{rd.Metric.Name, subject, rd.Value})
	}
	for _, f := range ev.Findings {
		r.Findings = append(r.Findings, FindingRecord{f, string(f.Cause)})
	}
	return r
}

func exchangeRecord(x *evidence.Exchange) ExchangeRecord {
	r := ExchangeRecord{Stage: string(x.Stage), Purpose: string(x.Purpose), Method: x.Method, URL: x.URL, Status: x.Status, Took: x.Took.Seconds(), Body: Show(x.Body)}
	if x.Fault != nil {
		r.Error = Show(x.Fault.Error())
	}
	for _, t := range []struct {
		name string
		took time.Duration
	}{{"resolve", x.Timing.Resolve}, {"connect", x.Timing.Connect}, {"tls", x.Timing.TLS}, {"first_byte", x.Timing.FirstByte}, {"body", x.Timing.Body}} {
		if t.took > 0 {
			if r.Timing == nil {
				r.Timing = map[string]float64{}
			}
			r.Timing[t.name] = t.took.Seconds()
		}
	}
	for name, values := range x.Header {
		if r.Header == nil {
			r.Header = map[string]string{}
		}
		r.Header[name] = Show(values[0])
	}
	return r
}

// A ClocksRecord is what is known of clocks, as machines read it. Skew is always local minus the other, in seconds.
type ClocksRecord struct {
	Local *ClockRecord  `json:"local,omitempty"` // by time servers
	Peers []ClockRecord `json:"peers"`           // servers that are asked
}

// A ClockRecord is one clock against ours.
type ClockRecord struct {
	Name     string        `json:"name,omitempty"`
	State    string        `json:"state,omitempty"`  // of ours: confident, low, unverified, none; of a time server: truechimer, falseticker, …; of a peer: disagree, where several servers with different clocks answer to its name
	Method   string        `json:"method,omitempty"` // of ours: consensus, chrony, kernel, peers; of a peer: http_date, token_iat
	Code     string        `json:"code,omitempty"`   // why a time server is no truechimer
	Detail   string        `json:"detail,omitempty"` // the same in words
	Skew     float64       `json:"skew_seconds"`
	Bound    float64       `json:"bound_seconds"`
	Measured *time.Time    `json:"measured,omitempty"`
	Trip     float64       `json:"round_trip_seconds,omitempty"`
	Distance float64       `json:"root_distance_seconds,omitempty"`
	Stratum  int           `json:"stratum,omitempty"`
	Samples  int           `json:"samples,omitempty"`          // answers that the interval of a peer rests upon
	Backdate float64       `json:"backdate_seconds,omitempty"` // how far an issuer dates tokens back, which is no skew
	Limit    float64       `json:"limit_seconds,omitempty"`    // skew of ours that is tolerated
	Sources  []ClockRecord `json:"sources,omitempty"`          // time servers
	Own      []ClockRecord `json:"own,omitempty"`              // what chrony and kernel of this machine say
}

// NewClocksRecord makes a record of what is known of clocks.
func NewClocksRecord(c Clocks) ClocksRecord {
	r := ClocksRecord{Peers: []ClockRecord{}}
	if k := c.Local; k != nil {
		r.Local = &ClockRecord{State: string(k.Confidence), Method: k.Reference, Skew: k.Skew.Seconds(), Bound: k.Bound.Seconds(), Limit: k.Limit.Seconds(), Measured: moment(k.Measured), Sources: sourceRecords(k.Sources), Own: sourceRecords(k.Own)}
	}
	for _, p := range c.Peers {
		r.Peers = append(r.Peers, ClockRecord{Name: p.Name, Method: p.Method, State: map[bool]string{true: "disagree"}[p.Disagree], Skew: p.Skew.Seconds(), Bound: p.Bound.Seconds(), Samples: p.Samples, Backdate: p.Backdate.Seconds(), Measured: moment(p.Measured)})
	}
	return r
}

func sourceRecords(list []evidence.ClockSource) (records []ClockRecord) {
	for _, s := range list {
		records = append(records, ClockRecord{Name: s.Name, State: s.State, Code: s.Code, Detail: Show(s.Detail), Skew: s.Skew.Seconds(), Bound: s.Bound.Seconds(), Trip: s.RTT.Seconds(), Distance: s.RootDistance.Seconds(), Stratum: s.Stratum, Measured: moment(s.Measured)})
	}
	return records
}

// Show is the last pass over a text that people or machines will read.
func Show(text string) string { return secret.Scrub(text) }

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
