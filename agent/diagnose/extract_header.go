package diagnose

import (
	"net/url"
	"slices"
	"strings"

	"github.com/authvigil/authvigil/probes/evidence"
)

// header reads the header fields that speak about authentication.
func (w *words) header(h map[string][]string) {
	for _, name := range sortedHeader(h) {
		for _, value := range h[name] {
			switch strings.ToLower(name) {
			case "x-amzn-errortype", "x-error-code", "x-error", "x-authentication-denied-reason", "x-auth-error", "x-seraph-loginreason", "x-mashery-error-code", "x-kong-error", "x-amz-error-code", "x-ms-error-code", "x-error-type", "x-oauth-error":
				value, _, _ = strings.Cut(value, ":")
				value, _, _ = strings.Cut(value, ";")
				w.add(value, true)
			case "grpc-status":
				w.grpc(value)
			case "grpc-message": // percent-encoded (gRPC over HTTP/2, responses)
				if plain, err := url.PathUnescape(value); err == nil {
					value = plain
				}
				w.add(value, false)
			case "x-error-message", "x-ms-diagnostics", "x-error-detail-header", "x-error-detail", "x-error-description", "x-databricks-reason-phrase", "x-reason", "x-auth-failure-reason":
				w.add(value, false)
			case "location":
				if _, query, found := strings.Cut(value, "?"); found {
					w.query(query)
				}
			case "wwwauthentication":
				for _, c := range evidence.ParseChallenges("Bearer " + value) {
					w.challenge(c)
				}
			default: // X-Anything-Rejection-Reason
				if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-") && (strings.HasSuffix(lower, "-reason") || strings.HasSuffix(lower, "-error") || strings.HasSuffix(lower, "-error-message")) {
					w.add(value, !strings.Contains(value, " "))
				}
			}
		}
	}
}

// grpcStatus gives the status of HTTP for those of gRPC (google/rpc/code.proto).
var grpcStatus = map[string]int{"16": 401, "7": 403, "8": 429, "14": 503, "4": 504, "5": 404, "12": 501, "13": 500, "2": 500, "15": 500, "3": 400, "9": 400, "10": 409}

func (w *words) grpc(code string) {
	if s, ok := grpcStatus[strings.TrimSpace(code)]; ok {
		w.status, w.failed = s, true
	}
}

// challenge reads the parameters of a challenge that say what was wrong: RFC 6750 section 3, RFC 9470 section 3, RFC 9449 section 7.1.
func (w *words) challenge(c evidence.Challenge) {
	for _, name := range []string{"error", "error_codes", "error_code"} {
		w.add(c.Parameters[name], true)
	}
	for _, name := range []string{"error_description", "message", "msg", "reason"} {
		w.add(c.Parameters[name], false)
	}
	if c.Parameters["acr_values"] != "" || c.Parameters["max_age"] != "" || c.Parameters["claims"] != "" && c.Scheme == "bearer" {
		w.note("step_up", "true")
	}
	if strings.EqualFold(c.Parameters["stale"], "true") && c.Scheme == "digest" { // RFC 7616 section 3.3
		w.note("stale", "true")
	}
}

func sortedHeader(h map[string][]string) []string {
	names := make([]string, 0, len(h))
	for n := range h {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
