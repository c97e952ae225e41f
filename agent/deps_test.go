package agent

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/authvigil/authvigil/"

// mayImport is the table of DESIGN.md: what each package may import of this module. Down only.
var mayImport = map[string][]string{
	"probes/evidence": {},
	"agent/secret":    {},
	"agent/pace":      {},
	"agent/spike":     {},
	"agent/diagnose":  {"probes/evidence"},
	"agent/alert":     {"agent/secret"},
	"probes/wire":     {"agent/secret", "probes/evidence"},
	"probes/certfile": {"probes/evidence"},
	"probes/starttls": {"probes/evidence"},
	"probes/identity": {"agent/pace", "agent/secret", "probes/evidence", "probes/wire"},
	"probes/logline":  {"probes/evidence"},
	"probes":          {"agent/secret", "agent/spike", "probes/certfile", "probes/evidence", "probes/identity", "probes/logline", "probes/starttls", "probes/wire"},
	"probes/sandbox":  {},
	"agent":           {"agent/alert", "agent/diagnose", "agent/pace", "agent/secret", "agent/spike", "probes", "probes/evidence", "probes/identity", "probes/wire"},
	"packaging":       {},
	"packaging/sbom":  {},
	"exporters":       {"agent", "agent/alert", "agent/diagnose", "agent/pace", "agent/secret", "probes/evidence"},
}

// pure packages have no network among their dependencies and do not import os themselves.
var pure = []string{"probes/evidence", "probes/logline", "agent/pace", "agent/spike", "agent/diagnose"}

// home says which package alone may import a library.
var home = map[string][]string{
	"github.com/prometheus/client_golang/prometheus": {"exporters"},
	"golang.org/x/oauth2":                            {"probes/identity"},
	"github.com/beevik/ntp":                          {"probes", "cmd/authvigil"},
	"software.sslmate.com/src/go-pkcs12":             {"probes/certfile"},
	"github.com/robfig/cron/v3":                      {"agent"},
	"github.com/knadh/koanf/v2":                      {"agent"},
	"github.com/spf13/cobra":                         {"cmd/authvigil"},
	"github.com/hashicorp/vault/api":                 {"agent/secret"},
	"github.com/aws/aws-sdk-go-v2/config":            {"agent/secret"},
}

func TestImports_followTheTable(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "../...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		name := strings.TrimPrefix(words[0], module)
		if strings.HasPrefix(name, "cmd/") {
			continue
		}
		allowed, known := mayImport[name]
		if !known {
			t.Errorf("package %s is not in the table", name)
		}
		for _, imported := range words[1:] {
			if of, ours := strings.CutPrefix(imported, module); ours && !slices.Contains(allowed, of) {
				t.Errorf("%s imports %s, which the table does not allow", name, of)
			}
			if homes, fenced := home[imported]; fenced && !slices.Contains(homes, name) {
				t.Errorf("%s imports %s, whose home is %v", name, imported, homes)
			}
			if slices.Contains(pure, name) && imported == "os" {
				t.Errorf("%s is pure and imports os", name)
			}
		}
	}
}

func TestPurePackages_haveNoNetwork(t *testing.T) {
	for _, name := range pure {
		out, err := exec.Command("go", "list", "-deps", module+name).Output()
		if err != nil {
			continue // a package of the table that is not there is no package with a network
		}
		for dep := range strings.Lines(string(out)) {
			if dep = strings.TrimSpace(dep); dep == "net" || dep == "net/http" || dep == "crypto/tls" {
				t.Errorf("%s depends on %s", name, dep)
			}
		}
	}
}
