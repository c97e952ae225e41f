package agent

import (
	"cmp"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/authvigil/authvigil/probes/evidence"
)

// line writes one line of the configuration, with what it means behind it.
func (p *proposer) line(key, value, comment string) {
	text := key + " = " + value
	if comment != "" {
		text = fmt.Sprintf("%-50s # %s", text, comment)
	}
	p.text.WriteString(text + "\n")
}

// quoted writes text as TOML does: what strangers wrote loses characters that no string may have.
func quoted(text string) string { return strconv.Quote(evidence.Clean(text, 2048)) }

func (p *proposer) table(name, comment string) {
	p.text.WriteString("\n")
	if comment != "" {
		p.text.WriteString("# " + comment + "\n")
	}
	p.text.WriteString("[" + name + "]\n")
}

func (p *proposer) authority() {
	if p.CAFile != "" {
		p.line("ca_file", quoted(p.CAFile), "")
	}
}

// write writes the configuration.
func (p *proposer) write() {
	p.text.WriteString("#:schema ./authvigil.schema.json\n# Written by: authvigil init. Every kind and key: authvigil config schema, or man authvigil.toml.\n")
	p.table("defaults", "")
	p.line("every", `"30s"`, "how often each probe asks")
	p.line("timeout", `"10s"`, "")
	identity := "api"
	if p.api == nil {
		identity = "client"
	}
	if p.Kind != "none" {
		p.writeIdentity(identity)
	}
	if p.api != nil {
		p.writeAPI(identity)
	}
	if p.Kind == "oauth2" {
		p.table("probe.token", "can a token be had, and does it live long enough?")
		p.line("kind", `"token"`, "")
		p.line("identity", quoted(identity), "")
		p.line("min_remaining", `"1m"`, "the length of the longest job it must outlive")
		p.table("probe.issuer", "metadata and keys of the issuer: are they there, usable, and as before?")
		p.line("kind", `"issuer"`, "")
		p.line("issuer", quoted(p.issuer), "")
		p.authority()
		p.certificate("probe.issuer-certificate", p.issuer)
	}
	p.writeClock()
	p.text.WriteString("\n# Alerts go to Alertmanager, a webhook or a program, see config.toml.example. Without a sink, scrape /metrics.\n")
}

// writeClock asks the time servers that were named. Public ones are nobody's default: the pool asks vendors not to point
// their products at it.
func (p *proposer) writeClock() {
	const question = "how wrong is this host's clock? Tokens and certificates depend on it."
	if len(p.Servers) == 0 {
		p.text.WriteString("\n# " + question + " Name three time servers of your network:\n# [probe.clock]\n# kind = \"ntp\"\n# servers = [\"ntp1.example.com\", \"ntp2.example.com\", \"ntp3.example.com\"]\n")
		return
	}
	p.table("probe.clock", question)
	p.line("kind", `"ntp"`, "")
	p.line("servers", quotedList(p.Servers), "three or more, so that one liar cannot spoil the verdict")
}

// writeAPI writes the probes of the API: as the identity, as a stranger, and its certificate.
func (p *proposer) writeAPI(identity string) {
	p.table("probe.api", "does the API answer those who may ask?")
	p.line("kind", `"http"`, "")
	p.line("url", quoted(p.api.String()), "")
	if p.Kind != "none" {
		p.line("identity", quoted(identity), "")
	}
	p.authority()
	if p.deny && p.Kind != "none" {
		p.table("probe.api-refuses-strangers", "is it still closed to those who may not?")
		p.line("kind", `"http"`, "")
		p.line("url", quoted(p.api.String()), "")
		p.line("expect", `"deny"`, "")
		p.line("every", `"5m"`, "")
		p.authority()
	}
	p.certificate("probe.api-certificate", p.api.String())
}

// certificate writes a probe of the certificate behind an address, unless one of the same address is there.
func (p *proposer) certificate(name, address string) {
	u, err := webAddress(address)
	if err != nil || u.Scheme != "https" {
		return
	}
	at := net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443"))
	if strings.Contains(p.text.String(), "address = "+quoted(at)) {
		return
	}
	p.table(name, "")
	p.line("kind", `"certificate"`, "")
	p.line("address", quoted(at), "")
	p.line("every", `"5m"`, "")
	p.authority()
}

// secret writes a reference to a secret that does not lie there yet.
func (p *proposer) secret(key, name string) {
	path := filepath.Join(p.Secrets, name)
	p.line(key, quoted("file:"+path), "or env:NAME, credential:NAME (systemd)")
	p.todo("put the %s into %s, readable by the user authvigil runs as and by nobody else", strings.ReplaceAll(key, "_", " "), path)
}

// writeIdentity writes who asks.
func (p *proposer) writeIdentity(name string) {
	p.table("identity."+name, "who asks")
	p.line("kind", quoted(p.Kind), "")
	switch p.Kind {
	case "oauth2":
		p.line("issuer", quoted(p.issuer), "")
		p.line("client_id", quoted(cmp.Or(p.ClientID, "authvigil")), "the client that was registered at the issuer")
		if p.ClientID == "" {
			p.todo("register a client at the issuer that may use client_credentials, and put its id into client_id")
		}
		p.secret("client_secret", name+".secret")
		p.clientAuth()
		p.audience()
	case "bearer":
		p.secret("token", name+".token")
	case "basic", "digest":
		p.line("username", quoted(cmp.Or(p.ClientID, "monitor")), "")
		p.secret("password", name+".password")
	case "api_key":
		p.line("header", quoted(cmp.Or(p.header, "X-Api-Key")), "or query = \"NAME\"")
		if p.prefix != "" {
			p.line("prefix", quoted(p.prefix), "")
		}
		p.secret("key", name+".key")
	}
	if p.Kind == "oauth2" {
		p.authority()
	}
}

// audience writes what the token is for. Issuers want an audience, scopes, or neither; none of them says which.
func (p *proposer) audience() {
	switch {
	case p.Audience != "":
		p.line("audience", quoted(p.Audience), "")
	case p.api != nil && len(p.Scopes) == 0:
		p.text.WriteString("# audience = " + quoted(p.api.Scheme+"://"+p.api.Host) + "   # issuers like Auth0 want it\n")
	}
	switch {
	case len(p.Scopes) > 0:
		p.line("scopes", quotedList(p.Scopes), "")
		return
	case p.Audience != "":
		return
	}
	p.text.WriteString("# scopes = [\"…\"]                                     # others want scopes\n")
}

func quotedList(texts []string) string {
	var list []string
	for _, text := range texts {
		list = append(list, quoted(text))
	}
	return "[" + strings.Join(list, ", ") + "]"
}

// clientAuth takes the first way of client authentication with a secret that the issuer offers. basic is the default of the
// standard where it offers none by name (RFC 8414 section 2).
func (p *proposer) clientAuth() {
	for _, way := range []struct{ offered, key string }{{"client_secret_basic", "basic"}, {"client_secret_post", "post"}, {"client_secret_jwt", "client_secret_jwt"}} {
		if len(p.meta.ClientAuths) == 0 || slices.Contains(p.meta.ClientAuths, way.offered) {
			p.line("client_auth", quoted(way.key), "as the client is registered; the issuer must agree")
			return
		}
	}
	p.line("client_auth", `"basic"`, "")
	p.todo("the issuer offers no client authentication by secret (it offers %s): see client_auth in config.toml.example", evidence.Clean(strings.Join(p.meta.ClientAuths, ", "), 200))
}
