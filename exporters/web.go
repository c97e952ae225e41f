package exporters

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/authvigil/authvigil/agent/alert"
)

// SchemaVersion is that of the records that machines read.
const SchemaVersion = 1

// Web serves what is read: page, metrics, records, health. Nothing can be changed through it.
type Web struct {
	Status     *Status
	Prometheus *Prometheus
	Version    string
	Hosts      []string              // names under which the page may be asked for besides this machine's addresses; others are refused, against DNS rebinding
	Ready      func() bool           // the probes run
	Alerts     func() []alert.Notice // what is pending or fires; nil: nobody is told
}

// Server makes the server, with bounds for whoever asks.
func (w *Web) Server() *http.Server {
	return &http.Server{Handler: w.Handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
}

// Handler gives all routes.
func (w *Web) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", w.Prometheus.Handler())
	mux.HandleFunc("GET /-/healthy", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprintln(rw, "authvigil is healthy.") })
	mux.HandleFunc("GET /-/ready", func(rw http.ResponseWriter, _ *http.Request) {
		if !w.Ready() {
			http.Error(rw, "authvigil is not ready yet.", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(rw, "authvigil is ready.")
	})
	mux.HandleFunc("GET /api/v1/probes", func(rw http.ResponseWriter, _ *http.Request) {
		writeJSON(rw, map[string]any{"schema_version": SchemaVersion, "probes": w.Status.Records()})
	})
	mux.HandleFunc("GET /api/v1/probes/{name}", func(rw http.ResponseWriter, r *http.Request) {
		record, ok := w.Status.Record(r.PathValue("name"))
		if !ok {
			http.Error(rw, "there is no such probe", http.StatusNotFound)
			return
		}
		writeJSON(rw, record)
	})
	mux.HandleFunc("GET /api/v1/findings", func(rw http.ResponseWriter, _ *http.Request) {
		writeJSON(rw, map[string]any{"schema_version": SchemaVersion, "findings": w.Status.Blames()})
	})
	mux.HandleFunc("GET /api/v1/alerts", func(rw http.ResponseWriter, _ *http.Request) {
		list := []alertRecord{}
		if w.Alerts != nil {
			for _, n := range w.Alerts() {
				list = append(list, alertRecord{n.Name, n.Culprit, string(n.Severity), n.Labels, n.Summary, n.Details, n.Silenced, moment(n.StartsAt)})
			}
		}
		writeJSON(rw, map[string]any{"schema_version": SchemaVersion, "alerts": list})
	})
	mux.HandleFunc("GET /api/v1/runways", func(rw http.ResponseWriter, _ *http.Request) {
		writeJSON(rw, map[string]any{"schema_version": SchemaVersion, "runways": w.Status.Runways()})
	})
	mux.HandleFunc("GET /api/v1/clocks", func(rw http.ResponseWriter, _ *http.Request) {
		writeJSON(rw, map[string]any{"schema_version": SchemaVersion, "clocks": NewClocksRecord(w.Status.Clocks())})
	})
	mux.HandleFunc("GET /{$}", w.index)
	mux.HandleFunc("GET /probes/{name}", w.probe)
	mux.HandleFunc("GET /runbooks/{$}", w.runbooks)
	mux.HandleFunc("GET /runbooks/{cause}", w.runbook)
	for name := range assets {
		mux.HandleFunc("GET /"+name, asset)
	}
	return w.guard(mux)
}

// An alertRecord is an alert that is pending (without a start) or fires.
type alertRecord struct {
	Name     string            `json:"alertname"`
	Culprit  string            `json:"culprit"`
	Severity string            `json:"severity"`
	Labels   map[string]string `json:"labels,omitempty"`
	Summary  string            `json:"summary"`
	Details  map[string]string `json:"annotations"`
	Silenced string            `json:"silenced,omitempty"` // why it does not begin
	StartsAt *time.Time        `json:"starts_at,omitempty"`
}

// guard refuses names that are not ours, and sets the headers that keep a browser from doing more than showing.
func (w *Web) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !w.ours(r.Host) {
			http.Error(rw, "this host name is not allowed; name it in agent.external_url", http.StatusMisdirectedRequest)
			return
		}
		h := rw.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cache-Control", "no-store")
		r.Body = http.MaxBytesReader(rw, r.Body, 4<<10)
		next.ServeHTTP(rw, r)
	})
}

// ours allows addresses and names without a dot, which no stranger can point elsewhere, and those that are configured.
func (w *Web) ours(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.Trim(host, "[]")
	}
	return name == "" || net.ParseIP(name) != nil || !strings.Contains(name, ".") || slices.Contains(w.Hosts, strings.ToLower(name))
}

// HostsOf gives the names to allow for an external address.
func HostsOf(externalURL string) []string {
	if u, err := url.Parse(externalURL); err == nil && u.Hostname() != "" {
		return []string{strings.ToLower(u.Hostname())}
	}
	return nil
}

func writeJSON(rw http.ResponseWriter, v any) {
	rw.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(rw)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // the connection is gone; nobody is there to be told
}
