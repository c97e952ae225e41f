package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/probes/evidence"
)

// Classify makes a fault of any error of net, tls, x509 or context. It is total: what it does not know stays unknown, and
// says so. A fault passes unchanged. ctx tells whether the time of the run was used up.
func Classify(ctx context.Context, stage evidence.Stage, err error) *evidence.Fault {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*evidence.Fault](err); ok {
		return f
	}
	f := &evidence.Fault{Stage: stage, Symptom: evidence.SymptomUnknown, Err: cleaned{err}}
	if c := asCertificateError(err); c != nil {
		f.Stage, f.Symptom, f.Code, f.Err = evidence.StageTLS, evidence.SymptomBadCertificate, c.Facet.Code, c
		return f
	}
	if code := ownDistress(err); code != "" {
		f.Symptom, f.Code = evidence.SymptomLocalResources, code
		return f
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		f.Stage, f.Symptom = evidence.StageResolve, evidence.SymptomDNS
		switch {
		case dns.IsNotFound:
			f.Code = "no_such_host"
		case resolverDown(dns):
			f.Symptom, f.Code = evidence.SymptomLocalResources, "resolver"
		case dns.IsTimeout || errors.Is(ctx.Err(), context.DeadlineExceeded):
			f.Code = "timeout"
		default:
			f.Code = "server_failure"
		}
		return f
	}
	if isTimeout(ctx, err) {
		f.Symptom = evidence.SymptomTimeout
		return f
	}
	if alert, ok := errors.AsType[tls.AlertError](err); ok {
		f.Stage, f.Symptom, f.Code = evidence.StageTLS, evidence.SymptomTLSAlert, strings.ReplaceAll(strings.TrimPrefix(alert.Error(), "tls: "), " ", "_")
		return f
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		f.Stage, f.Symptom = evidence.StageTLS, evidence.SymptomTLSAlert
		f.Code = strings.ReplaceAll(strings.TrimPrefix(op.Err.Error(), "tls: "), " ", "_")
		return f
	}
	text := err.Error()
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		f.Symptom = evidence.SymptomRefused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		f.Symptom = evidence.SymptomUnreachable
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		f.Symptom, f.Code = evidence.SymptomClosed, "reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(text, "server closed idle connection"):
		f.Symptom, f.Code = evidence.SymptomClosed, "eof"
	case isTLS(err):
		f.Stage, f.Symptom = evidence.StageTLS, evidence.SymptomTLS
		f.Code = tlsCode(text)
	case strings.Contains(text, "response headers exceeded"):
		f.Symptom, f.Code = evidence.SymptomTooLarge, "header"
	case strings.Contains(text, "malformed HTTP"), strings.Contains(text, "malformed MIME"), strings.Contains(text, "transfer encoding"),
		strings.Contains(text, "Content-Length"), strings.Contains(text, "HTTP/1.x transport connection broken"), strings.Contains(text, "chunked"):
		f.Symptom, f.Code = evidence.SymptomBadAnswer, "http"
	case strings.Contains(text, "Proxy Authentication Required"):
		f.Stage, f.Symptom, f.Code = evidence.StageConnect, evidence.SymptomProxy, "407"
	case strings.Contains(text, "proxyconnect"):
		f.Stage, f.Symptom = evidence.StageConnect, evidence.SymptomProxy
	}
	return f
}

func isTimeout(ctx context.Context, err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ETIMEDOUT) {
		return true
	}
	if t, ok := errors.AsType[net.Error](err); ok && t.Timeout() {
		return true
	}
	return errors.Is(ctx.Err(), context.DeadlineExceeded)
}

// ownDistress says what this machine lacks; such a fault says nothing about what was probed.
func ownDistress(err error) string {
	for code, errno := range map[string]syscall.Errno{
		"too_many_open_files": syscall.EMFILE, "too_many_open_files_in_system": syscall.ENFILE, "out_of_memory": syscall.ENOMEM,
		"no_buffers": syscall.ENOBUFS, "no_local_port": syscall.EADDRNOTAVAIL,
	} {
		if errors.Is(err, errno) {
			return code
		}
	}
	if strings.Contains(err.Error(), "too many open files") { // net.DNSError keeps only the text
		return "too_many_open_files"
	}
	return ""
}

// resolverDown says whether the machine's own resolver could not be asked, as against a name server that said no.
func resolverDown(dns *net.DNSError) bool {
	return strings.Contains(dns.Err, "connection refused") || strings.Contains(dns.Err, "network is unreachable") ||
		strings.Contains(dns.Err, "permission denied") || strings.Contains(dns.Err, "no route to host")
}

func isTLS(err error) bool {
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	return strings.Contains(err.Error(), "tls: ") || strings.Contains(err.Error(), "x509: ")
}

func tlsCode(text string) string {
	switch {
	case strings.Contains(text, "server gave HTTP response to HTTPS client"), strings.Contains(text, "first record does not look like a TLS handshake"):
		return "not_tls"
	case strings.Contains(text, "unsupported protocol version"), strings.Contains(text, "protocol version not supported"):
		return "protocol_too_old"
	case strings.Contains(text, "failed to parse certificate"):
		return "unparseable_certificate"
	default:
		return ""
	}
}

// cleaned shows an error as it may be shown; the error itself stays for errors.Is and As.
type cleaned struct{ error }

func (c cleaned) Error() string { return secret.Scrub(evidence.Clean(c.error.Error(), 512)) }
func (c cleaned) Unwrap() error { return c.error }
