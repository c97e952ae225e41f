package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/authvigil/authvigil/agent"
	"github.com/authvigil/authvigil/agent/secret"
	"github.com/authvigil/authvigil/exporters"
	"github.com/authvigil/authvigil/probes/evidence"
)

func inspectCommand(a *app) *cobra.Command {
	var cert certFlags
	c := &cobra.Command{Use: "inspect", Short: "Look at a token, a certificate or the clock"}
	c.AddCommand(
		&cobra.Command{Use: "token REF", Short: "Decode a token; REF is a file, -, env:NAME, file:PATH or credential:NAME", Args: cobra.ExactArgs(1), Example: "  authvigil inspect token file:/etc/authvigil/token\n  pbpaste | authvigil inspect token -", RunE: func(c *cobra.Command, args []string) error {
			return a.inspectToken(c.Context(), args[0])
		}},
		cert.bind(&cobra.Command{Use: "cert HOST:PORT|FILE", Short: "Show and judge a certificate chain, of a server or of a file (PEM, DER, PKCS #7, PKCS #12, JKS, kubeconfig)", Args: cobra.ExactArgs(1), Example: "  authvigil inspect cert api.example.com:443\n  authvigil inspect cert --passphrase env:PASS site.p12", RunE: func(c *cobra.Command, args []string) error {
			return a.inspectCert(c.Context(), args[0], &cert)
		}}),
		&cobra.Command{Use: "clock SERVER…", Short: "Compare the local clock with time servers", Args: cobra.MinimumNArgs(1), Example: "  authvigil inspect clock ntp1.example.com ntp2.example.com ntp3.example.com", RunE: func(c *cobra.Command, args []string) error {
			return a.inspectProbe(c.Context(), fmt.Sprintf("kind = \"ntp\"\nservers = [\"%s\"]", strings.Join(args, "\", \"")))
		}},
	)
	return c
}

// inspectToken decodes a token. It is never taken from the command line, where every user of the machine could read it.
func (a *app) inspectToken(ctx context.Context, where string) error {
	text, err := a.readToken(ctx, where)
	if err != nil {
		return exit{exitUsage, err}
	}
	t := evidence.DecodeToken(strings.TrimSpace(text))
	t.Problems = append(t.Problems, evidence.LintCredential(strings.TrimRight(text, "\r\n"))...)
	now := time.Now()
	if !t.Expiry.IsZero() && !now.Before(t.Expiry) {
		t.Problems = append(t.Problems, "ended "+evidence.Span(now.Sub(t.Expiry))+" ago")
	}
	if t.NotBefore.After(now) {
		t.Problems = append(t.Problems, "is not valid before "+evidence.Span(t.NotBefore.Sub(now))+" from now")
	}
	if t.Issued.After(now.Add(time.Minute)) {
		t.Problems = append(t.Problems, "was issued "+evidence.Span(t.Issued.Sub(now))+" in the future: a clock is wrong")
	}
	if t.Signature == evidence.SignatureNone && t.Format == "jwt" {
		t.Problems = append(t.Problems, "has no signature")
	}
	if a.output != "text" {
		if err := writeJSON(a.stdout, map[string]any{"schema_version": exporters.SchemaVersion, "token": t}); err != nil {
			return err
		}
	} else {
		a.showToken(&t, now)
	}
	if len(t.Problems) > 0 {
		return exit{code: exitFound}
	}
	return nil
}

func (a *app) readToken(ctx context.Context, where string) (string, error) {
	switch scheme, _, _ := strings.Cut(where, ":"); {
	case where == "-":
		b, err := io.ReadAll(io.LimitReader(bufio.NewReader(a.stdin), 1<<20))
		secret.Remember(strings.TrimSpace(string(b)))
		return string(b), err
	case scheme == "env" || scheme == "file" || scheme == "credential":
		r, err := secret.Parse(where)
		if err != nil {
			return "", err
		}
		v, err := r.Reveal(ctx)
		return v.Expose(), err
	case strings.Count(where, ".") == 2 && strings.HasPrefix(where, "ey"):
		return "", errors.New("a token on the command line is seen by every user of the machine; give a file, - or env:NAME")
	}
	path, err := filepath.Abs(where)
	if err != nil {
		return "", err
	}
	r, err := secret.Parse("file:" + path)
	if err != nil {
		return "", err
	}
	v, err := r.Reveal(ctx)
	return v.Expose(), err
}

func (a *app) showToken(t *evidence.Token, now time.Time) {
	p, rows := a.paper(a.stdout), [][]cell{}
	row := func(name, value string, c paint) {
		if value != "" {
			rows = append(rows, []cell{{name, faint}, {value, c}})
		}
	}
	when := func(name string, at time.Time, c paint) {
		if !at.IsZero() {
			row(name, at.UTC().Format(time.RFC3339)+" ("+away(at, now)+")", c)
		}
	}
	row("format", t.Format, plain)
	row("algorithm", t.Alg, plain)
	row("key id", t.Kid, plain)
	row("type", t.Type, plain)
	row("issuer", t.Issuer, plain)
	row("audience", strings.Join(t.Audience, " "), plain)
	row("client", t.ClientID, plain)
	row("scopes", strings.Join(t.Scopes, " "), plain)
	when("issued", t.Issued, plain)
	when("not before", t.NotBefore, plain)
	end := green
	if t.Expiry.Before(now) {
		end = red
	}
	when("ends", t.Expiry, end)
	row("bound by", t.Bound, plain)
	for _, problem := range t.Problems {
		row("problem", problem, red)
	}
	p.table(nil, rows)
}

// certFlags are those of `inspect cert`.
type certFlags struct{ caFile, serverName, starttls, passphrase string }

func (f *certFlags) bind(c *cobra.Command) *cobra.Command {
	c.Flags().StringVar(&f.caFile, "ca-file", "", "PEM file with the authorities to trust in place of the system's")
	c.Flags().StringVar(&f.serverName, "server-name", "", "name to ask for and to expect; default: the host")
	c.Flags().StringVar(&f.starttls, "starttls", "", "smtp, imap, pop3, ftp, ldap, postgres, mysql or xmpp")
	c.Flags().StringVar(&f.passphrase, "passphrase", "", "reference to the passphrase of a PKCS #12 or JKS file, such as file:PATH or env:NAME")
	return c
}

// settings are those of a certificate probe.
func (f *certFlags) settings(what string) (string, error) {
	text := fmt.Sprintf("kind = \"certificate\"\naddress = %q\n", what)
	if _, _, err := net.SplitHostPort(what); err != nil {
		if info, err := os.Stat(what); err != nil || !info.Mode().IsRegular() {
			return "", fmt.Errorf("%q is neither host:port nor a file that can be read", what)
		}
		path, err := filepath.Abs(what)
		if err != nil {
			return "", err
		}
		escaped := strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
		text = fmt.Sprintf("kind = \"certificate\"\nfiles = [%q]\n", escaped)
	}
	for key, value := range map[string]string{"ca_file": f.caFile, "server_name": f.serverName, "starttls": f.starttls, "passphrase": f.passphrase} {
		if value != "" {
			text += fmt.Sprintf("%s = %q\n", key, value)
		}
	}
	return text, nil
}

func (a *app) inspectCert(ctx context.Context, what string, flags *certFlags) error {
	settings, err := flags.settings(what)
	if err != nil {
		return exit{exitUsage, err}
	}
	return a.inspectProbe(ctx, settings)
}

// inspectProbe runs one probe that the command line describes.
func (a *app) inspectProbe(ctx context.Context, settings string) error {
	log, _, err := a.logger()
	if err != nil {
		return err
	}
	c, err := agent.Parse("command line", "[probe.look]\n"+settings+"\n")
	if err != nil {
		return exit{exitUsage, err}
	}
	ag, err := agent.New(c, a.env(log))
	if err != nil {
		return exit{exitUsage, err}
	}
	events, err := ag.Once(ctx, nil)
	if err != nil {
		return exit{exitUsage, err}
	}
	ev := &events[0]
	switch {
	case a.output != "text":
		if err := a.report(events); err != nil {
			return err
		}
	default:
		if ev.Report.Chain != nil {
			a.showChain(ev.Report.Chain)
		}
		if ev.Report.Clock != nil {
			a.showClock(ev.Report.Clock)
		}
		if ev.Fault != nil {
			fmt.Fprintf(a.stderr, "problem: %s\n", exporters.Show(ev.Fault.Error()))
		}
		for _, f := range ev.Findings {
			a.finding(f, nil)
		}
	}
	if ev.Fault != nil || len(ev.Findings) > 0 {
		return exit{code: exitFound}
	}
	return nil
}

func (a *app) showChain(c *evidence.Chain) {
	p, now, rows := a.paper(a.stdout), time.Now(), [][]cell{}
	for i := range c.Certificates {
		cert := &c.Certificates[i]
		end := green
		if cert.NotAfter.Before(now) {
			end = red
		}
		rows = append(rows, []cell{{cert.Role, plain}, {cert.NotAfter.UTC().Format(time.RFC3339) + " (" + away(cert.NotAfter, now) + ")", end}, {cert.KeyType, plain}, {cert.Fingerprint, faint}, {cert.Subject + ", issued by " + cert.Issuer, plain}})
	}
	p.table([]string{"ROLE", "ENDS", "KEY", "FINGERPRINT", "SUBJECT"}, rows)
	if len(c.Facets) == 0 {
		return
	}
	p.say()
	rows = nil
	for _, f := range c.Facets {
		rows = append(rows, []cell{{strings.ReplaceAll(f.Name, "_", " "), plain}, {string(f.State), statePaint[f.State]}, {f.Detail, plain}})
	}
	p.table([]string{"QUESTION", "STATE", "DETAIL"}, rows)
}

var statePaint = map[evidence.State]paint{evidence.OK: green, evidence.Warn: amber, evidence.Fail: red, evidence.Unknown: faint}

func (a *app) showClock(c *evidence.Clock) {
	p, rows := a.paper(a.stdout), [][]cell{}
	for _, s := range slices.Concat(c.Sources, c.Own) {
		look := amber
		if s.State == "truechimer" {
			look = green
		}
		rows = append(rows, []cell{{s.Name, plain}, {s.State, look}, {signedSpan(s.Skew), plain}, {"± " + span(s.Bound), plain}, {span(s.RTT), plain}, {s.Detail, plain}})
	}
	p.table([]string{"SOURCE", "STATE", "LOCAL MINUS SOURCE", "BOUND", "ROUND TRIP", "DETAIL"}, rows)
	if c.Confidence != evidence.NoConfidence {
		p.say(p.in(bold, "local clock minus true time"), p.in(plain, ": "+signedSpan(c.Skew)+" ± "+span(c.Bound)+" ("+string(c.Confidence)+")"))
	}
}
